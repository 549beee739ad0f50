-- From version 1 of the schema to version 2.
ALTER TABLE buckets RENAME COLUMN pool TO key;
CREATE INDEX executions_launched ON executions (pump, id) WHERE ended_at IS NULL AND line IS NULL;
CREATE TABLE bookmark (only INTEGER PRIMARY KEY CHECK (only = 1), execution TEXT NOT NULL);
CREATE TABLE registrations (hash TEXT PRIMARY KEY, arn TEXT, turn_until INTEGER NOT NULL) WITHOUT ROWID;
