-- The limits of `local serve --vcpus N --launch-rate N`. They go with its work to the supervisor that takes it over. NULL is no limit.
ALTER TABLE pumps ADD COLUMN vcpus REAL;
ALTER TABLE pumps ADD COLUMN launch_rate REAL;
