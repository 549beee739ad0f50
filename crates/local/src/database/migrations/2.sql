ALTER TABLE buckets RENAME COLUMN pool TO key;
CREATE INDEX executions_launched ON executions (pump, id) WHERE ended_at IS NULL AND line IS NULL;
-- Where a sweep was cut short: at most one row.
CREATE TABLE bookmark (only INTEGER PRIMARY KEY CHECK (only = 1), execution TEXT NOT NULL);
-- Which definitions are registered, and whose turn it is to do that until when.
CREATE TABLE registrations (hash TEXT PRIMARY KEY, arn TEXT, turn_until INTEGER NOT NULL) WITHOUT ROWID;
