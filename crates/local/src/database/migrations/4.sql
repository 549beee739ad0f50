-- Principals: who submitted something is known by an id, and no longer by the name of a key.
--
-- `submitter` is the principal from now on; `by_name` is the name of the key, for people. A name belongs to one key at a time. So what was
-- submitted under a name since the key of that name was made was submitted with that key. What is older stays under the name alone, and is
-- nobody's: its key may have been another one.
ALTER TABLE executions ADD COLUMN by_name TEXT NOT NULL DEFAULT '';
UPDATE executions SET by_name = submitter;
CREATE INDEX executions_by_name ON executions (by_name, id);

CREATE TEMP TABLE owners AS
    SELECT name, 'key:' || id AS principal, 1000 * unixepoch(json_extract(record, '$.created_at'), 'subsec') AS since
    FROM keys WHERE json_valid(record);
UPDATE executions SET
    submitter = owners.principal,
    record = CASE WHEN json_valid(record) THEN json_set(record, '$.submitted_by_id', owners.principal) ELSE record END
    FROM owners WHERE owners.name = submitter AND submitted_at >= since;

-- Claims and submissions last for a day. Those of no key of today are taken for this machine's own user's, so that what was promised is kept.
-- Several names may have used one key; the row that lasts longest stays.
DELETE FROM claims WHERE expires_at <= 1000 * unixepoch('subsec');
CREATE TEMP TABLE renamed AS
    SELECT key AS old, iif(owners.name IS NULL, 'local' || substr(key, instr(key, '/')),
               iif(expires_at - 86400000 >= since, principal || substr(key, instr(key, '/')), key)) AS new, expires_at
    FROM claims LEFT JOIN owners ON owners.name = substr(key, 1, instr(key, '/') - 1);
DELETE FROM claims WHERE key IN (SELECT old FROM (
    SELECT old, row_number() OVER (PARTITION BY new ORDER BY expires_at DESC, old) AS place FROM renamed) WHERE place > 1);
UPDATE claims SET key = new FROM renamed WHERE old = key AND new <> key;
DROP TABLE renamed;

-- The ids of a submission's lines are made of `seed`; without one of its principal.
ALTER TABLE submissions ADD COLUMN seed TEXT;
UPDATE submissions SET seed = substr(key, 1, instr(key, '/') - 1);
DELETE FROM submissions WHERE expires_at <= 1000 * unixepoch('subsec');
CREATE TEMP TABLE renamed AS
    SELECT key AS old, iif(owners.name IS NULL, 'local' || substr(key, instr(key, '/')),
               iif(opened_at >= since, principal || substr(key, instr(key, '/')), key)) AS new, expires_at
    FROM submissions LEFT JOIN owners ON owners.name = seed;
DELETE FROM submissions WHERE key IN (SELECT old FROM (
    SELECT old, row_number() OVER (PARTITION BY new ORDER BY expires_at DESC, old) AS place FROM renamed) WHERE place > 1);
UPDATE submissions SET key = new FROM renamed WHERE old = key AND new <> key;
DROP TABLE renamed;
DROP TABLE owners;

-- Keys that were rotated and are good for a while longer.
CREATE TABLE retired_keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
