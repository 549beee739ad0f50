-- From version 2 of the schema to version 3.
CREATE TABLE line_states (line TEXT, pump TEXT, revision INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (line, pump)) WITHOUT ROWID;
CREATE TABLE submissions (key TEXT PRIMARY KEY, opened_at INTEGER NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
