-- What holds a line, and how it moves; as JSON.
CREATE TABLE line_states (line TEXT, pump TEXT, revision INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (line, pump)) WITHOUT ROWID;
-- When a submission of many lines was first heard of, which its executions' ids are made of.
CREATE TABLE submissions (key TEXT PRIMARY KEY, opened_at INTEGER NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
