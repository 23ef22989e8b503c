-- The ledger of submissions, version 1: what has been handed over whole and is done. The body of one
-- DO block, that may be run any number of times; GRANTS is replaced. Names and operators in the
-- functions are qualified, because they run under the caller's search_path.
DECLARE
  users_path text := pg_catalog.current_setting('search_path');
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  -- The same lock as the ledger's: the schema is made by whichever comes first.
  PERFORM pg_catalog.pg_advisory_xact_lock(7310022437264650033);

  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'segue') THEN
    CREATE SCHEMA segue;
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'segue' AND c.relname = 'submission'
  ) THEN
    CREATE TABLE segue.submission (
      id uuid PRIMARY KEY,
      -- -infinity in the rows of padding.
      done_at timestamptz NOT NULL DEFAULT pg_catalog.now()
    ) WITH (autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
    -- A small table would be read in full to find a predecessor, and a prepared statement would keep
    -- doing so after it has grown. These rows are nobody's and are never purged.
    INSERT INTO segue.submission (id, done_at)
    SELECT pg_catalog.md5('segue padding ' || i)::pg_catalog.uuid, '-infinity'
    FROM pg_catalog.generate_series(1, 1000) AS i;
    ANALYZE segue.submission;
  END IF;

  -- Called by a claim whose predecessor in its lane is not done.
  CREATE OR REPLACE FUNCTION segue.out_of_order(predecessor uuid) RETURNS uuid
  LANGUAGE plpgsql VOLATILE AS $function$
  BEGIN
    RAISE EXCEPTION USING
      ERRCODE = 'SG003',
      MESSAGE = 'the submission ahead of this one in its lane is not done',
      HINT = 'This attempt must be rolled back, and made again when that is settled.';
  END
  $function$;

  CREATE OR REPLACE FUNCTION segue.claim(submission uuid) RETURNS integer
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $function$
  BEGIN
    INSERT INTO segue.submission (id) VALUES ($1);
    RETURN 1;
  END
  $function$;

  CREATE OR REPLACE FUNCTION segue.claim_after(submission uuid, predecessor uuid) RETURNS integer
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $function$
  BEGIN
    IF NOT EXISTS (SELECT FROM segue.submission AS s WHERE s.id OPERATOR(pg_catalog.=) $2) THEN
      PERFORM segue.out_of_order($2);
    END IF;
    INSERT INTO segue.submission (id) VALUES ($1);
    RETURN 1;
  END
  $function$;

  -- For those who may not read the table: which of these are done.
  CREATE OR REPLACE FUNCTION segue.claimed(submissions uuid[]) RETURNS TABLE (id uuid)
  LANGUAGE sql STABLE SECURITY DEFINER AS $function$
    SELECT s.id FROM segue.submission AS s WHERE s.id OPERATOR(pg_catalog.=) ANY ($1)
  $function$;

  -- For the administrator. What is purged could be executed once more by whoever still has it queued
  -- or submits its key again.
  CREATE OR REPLACE FUNCTION segue.purge_submissions(older_than interval) RETURNS bigint
  LANGUAGE plpgsql VOLATILE AS $function$
  DECLARE
    purged bigint;
  BEGIN
    DELETE FROM segue.submission AS s
    WHERE s.done_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) $1)
      AND s.done_at OPERATOR(pg_catalog.>) '-infinity'::pg_catalog.timestamptz;
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
  END
  $function$;

  REVOKE ALL ON FUNCTION segue.out_of_order(uuid), segue.claim(uuid), segue.claim_after(uuid, uuid),
    segue.claimed(uuid[]), segue.purge_submissions(interval) FROM PUBLIC;
  {GRANTS}
  PERFORM pg_catalog.set_config('search_path', users_path, true);
END
