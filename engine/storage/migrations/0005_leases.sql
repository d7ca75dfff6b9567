-- Leases: each run of a node has one, and a session may be handed on to another run.

ALTER TABLE nodes
    ADD COLUMN lease_since timestamptz,
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN address text;
COMMENT ON COLUMN nodes.lease_since IS
    'Since when the lease has held without a gap, by the clock of this server; null for a node alone.';
COMMENT ON COLUMN nodes.lease_until IS
    'Until then nobody takes sessions of this run, by the clock of this server; null for a node alone.';
COMMENT ON COLUMN nodes.address IS
    'What the run tells the other nodes of itself, as JSON; null for a node alone.';

ALTER TABLE sessions ADD COLUMN granted_by text;
CREATE INDEX sessions_unfinished_owner ON sessions (owner) WHERE finished_at IS NULL;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('sessions') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.owner IS %L', part,
            'The run of a node that may write to this session, or that may claim it if granted_by is set; null '
            'before the first claim, and when it was handed on to nobody.');
        EXECUTE format('COMMENT ON COLUMN %s.granted_by IS %L', part,
            'The run that has handed the session on, until its next owner has claimed it; null otherwise.');
    END LOOP;
END
$$;
