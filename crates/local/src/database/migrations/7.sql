-- Work on groups, of all processes on this file: one of a kind for each group.
CREATE TABLE group_work (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    done INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    form TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
INSERT INTO group_work SELECT 'cancel', name, revision, done, expires_at, mark FROM group_cancels;
DROP TABLE group_cancels;
