/**
 * For how long a task is known to have its row in a table, or its line in a file. It must be longer than a task can be tried
 * again: dead letters are kept for 90 days by default, and a backoff takes 7 at most.
 */
export const KEPT_DAYS = 100
