-- The counts, times and cost of the runs of one slot on one day, of all processes on this file.
CREATE TABLE tallies (
    dimension TEXT NOT NULL,
    day TEXT NOT NULL,
    slot TEXT NOT NULL,
    form TEXT NOT NULL,
    PRIMARY KEY (dimension, day, slot)
) WITHOUT ROWID;
