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
UPDATE claims SET key = coalesce(
    (SELECT principal FROM owners WHERE name = substr(key, 1, instr(key, '/') - 1) AND expires_at - 86400000 >= since),
    iif(EXISTS (SELECT 1 FROM owners WHERE name = substr(key, 1, instr(key, '/') - 1)), substr(key, 1, instr(key, '/') - 1), 'local')
) || substr(key, instr(key, '/'));
-- The ids of a submission's lines are made of `seed`; without one of its principal.
ALTER TABLE submissions ADD COLUMN seed TEXT;
UPDATE submissions SET seed = substr(key, 1, instr(key, '/') - 1);
UPDATE submissions SET key = coalesce(
    (SELECT principal FROM owners WHERE name = seed AND opened_at >= since),
    iif(EXISTS (SELECT 1 FROM owners WHERE name = seed), seed, 'local')
) || substr(key, instr(key, '/'));
DROP TABLE owners;

-- Keys that were rotated and are good for a while longer.
CREATE TABLE retired_keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
