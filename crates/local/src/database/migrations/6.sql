-- The marks of groups that were cancelled, of all processes on this file.
CREATE TABLE group_cancels (
    name TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    done INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    mark TEXT NOT NULL
) WITHOUT ROWID;
