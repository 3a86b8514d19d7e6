"""A worker for one queue: takes messages from RabbitMQ, and tells Longshore over HTTP how its tasks ended."""
import http.client, json, os, signal, threading, time, urllib.error, urllib.request, uuid
import pika  # pip install pika, or on Debian: apt install python3-pika

SERVER, KEY, QUEUE = (os.environ[name] for name in ("LONGSHORE_URL", "LONGSHORE_KEY", "QUEUE"))
NODE, held, leaving = str(uuid.uuid4()), set(), threading.Event()

def call(path, **body):
    """Asks until the server has answered; every call may be repeated. What it refuses raises, and ends the worker."""
    request = urllib.request.Request(f"{SERVER}/api/v1/{path}", json.dumps({"node": NODE, **body}).encode(),
                                     {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
    while True:
        try:
            return json.load(urllib.request.urlopen(request, timeout=30))
        except (OSError, ValueError, http.client.HTTPException) as error:  # not there, cut off, or busy (5xx): the work is kept
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise SystemExit(f"{path}: {error.code} {error.read().decode()}")
        time.sleep(1)

def beat():
    try:
        while call("beats", held=list(held), started=list(held))["alive"]:
            time.sleep(5)
    finally:
        leaving.is_set() or os._exit(1)  # taken for dead, or refused: its tasks run elsewhere, and its supervisor starts it under a new id

def work(payload):  # yours: what it returns is the result; what it raises is a failure, and is tried again
    return {"seen": payload}

def on_message(channel, message, properties, body):
    names = properties.headers or {}
    if "x-longshore-task" not in names:  # somebody else's: kept as a dead letter
        return channel.basic_reject(message.delivery_tag, requeue=False)
    delivery = {"kind": "task", "id": names["x-longshore-task"], "attempt": names["x-longshore-attempt"]}
    [answer] = call("claims", claimId=str(uuid.uuid4()), queue=QUEUE, deliveries=[delivery])["answers"]
    if answer["kind"] == "claimed":
        task = answer["task"]
        held.add(task["id"])
        try:
            outcome = {"kind": "succeeded", "result": json.dumps(work(json.loads(task["payload"])))}
        except Exception as error:
            outcome = {"kind": "failed", "retryable": True, "error": repr(error)}
        call("outcomes", settlements=[{"id": task["id"], "attempt": task["attempt"], "outcome": outcome}])
        held.remove(task["id"])
    channel.basic_ack(message.delivery_tag)  # after the outcome is stored, never before

channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
channel.basic_qos(prefetch_count=1)
channel.basic_consume(QUEUE, on_message)
for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, lambda *_: channel.connection.add_callback_threadsafe(channel.stop_consuming))
call("beats", join={"name": f"python:{os.getpid()}", "version": "1"})
threading.Thread(target=beat, daemon=True).start()
channel.start_consuming()
leaving.set()
call("beats", leave=True)
