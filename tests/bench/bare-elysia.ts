import { Elysia, t } from 'elysia'

const app = new Elysia().post('/', ({ body }) => body, { body: t.Object({ payload: t.Object({ n: t.Number() }) }) })
const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app.fetch })
console.log(server.url.href)
