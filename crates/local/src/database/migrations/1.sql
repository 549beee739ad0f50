-- The first schema. Times are milliseconds since the epoch, UTC. `pump` is the process that runs what the row stands for.

-- One row for each execution. `record` is the whole truth, as JSON; the other columns are taken from it to be found by.
-- It comes last, so that reading the others does not read a large record's further pages.
CREATE TABLE executions (
    id         TEXT NOT NULL UNIQUE,
    revision   INTEGER NOT NULL,
    pump       TEXT NOT NULL,
    status     TEXT NOT NULL,
    ended_at   INTEGER,                   -- once it is final
    submitter  TEXT NOT NULL,
    grp        TEXT,
    submitted_at INTEGER NOT NULL,
    priority   INTEGER NOT NULL,
    reversed   TEXT NOT NULL,             -- the id backwards, to be found by its end
    line       TEXT,                      -- while it has a ticket
    not_before INTEGER,                   -- the ticket's
    record     TEXT NOT NULL
);
CREATE INDEX executions_status ON executions (status, id);
CREATE INDEX executions_submitter ON executions (submitter, id);
CREATE INDEX executions_group ON executions (grp, id) WHERE grp IS NOT NULL;
CREATE INDEX executions_reversed ON executions (reversed);
CREATE INDEX executions_open ON executions (pump, id) WHERE ended_at IS NULL;
-- A line in each submitter's own order; covers all of a ticket.
CREATE INDEX executions_line ON executions (line, pump, submitter, priority DESC, submitted_at, id, not_before)
    WHERE line IS NOT NULL;
-- The oldest ticket of a line, whoever runs it.
CREATE INDEX executions_oldest ON executions (line, id, not_before, pump) WHERE line IS NOT NULL;

CREATE TABLE task_ids (task_id TEXT PRIMARY KEY, execution TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (key TEXT PRIMARY KEY, digest TEXT NOT NULL, execution TEXT NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE usage (key TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets (pool TEXT PRIMARY KEY, spent REAL NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;

-- Fairness: each submitter's virtual time in a line, and the line's own. Both are forgotten when the line is empty.
CREATE TABLE shares (line TEXT, pump TEXT, submitter TEXT, served INTEGER NOT NULL, PRIMARY KEY (line, pump, submitter)) WITHOUT ROWID;
CREATE TABLE line_times (line TEXT, pump TEXT, reached INTEGER NOT NULL, PRIMARY KEY (line, pump)) WITHOUT ROWID;

CREATE TABLE keys (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pumps (id TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE definitions (hash TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks (
    arn          TEXT NOT NULL UNIQUE,
    client_token TEXT NOT NULL UNIQUE,
    started_by   TEXT NOT NULL,           -- the attempt's id
    pump         TEXT NOT NULL,
    open         INTEGER NOT NULL,        -- 1 until it is STOPPED
    stop         TEXT,                    -- why somebody wants it stopped
    definition   TEXT NOT NULL,           -- its hash
    runtime      TEXT,                    -- where it runs, in the runner's words
    task         TEXT NOT NULL,
    input        TEXT NOT NULL
);
CREATE INDEX tasks_started_by ON tasks (started_by);
CREATE INDEX tasks_open ON tasks (pump) WHERE open;

CREATE TABLE messages (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    queue      TEXT NOT NULL,
    pump       TEXT NOT NULL,
    visible_at INTEGER NOT NULL,
    receives   INTEGER NOT NULL,
    sent_at    INTEGER NOT NULL,
    body       TEXT NOT NULL
);
CREATE INDEX messages_due ON messages (pump, queue, visible_at, id);
CREATE TABLE dead_letters (
    id       INTEGER PRIMARY KEY,         -- the message's
    queue    TEXT NOT NULL,
    pump     TEXT NOT NULL,
    settled  INTEGER NOT NULL DEFAULT 0,  -- 1 once what it was about was closed
    body     TEXT NOT NULL,
    receives INTEGER NOT NULL,
    sent_at  INTEGER NOT NULL,
    died_at  INTEGER NOT NULL,
    reason   TEXT NOT NULL
);
CREATE INDEX dead_letters_unsettled ON dead_letters (pump) WHERE NOT settled;
