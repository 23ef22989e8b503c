-- The ledger of commits, version 1: installs it, upgrades what is older, leaves alone what is newer.
-- The body of one DO block, so that it is one transaction however it is sent; GRANTS is replaced.
-- The functions run with their owner's rights and the caller's search_path, because a SET clause
-- costs more than the seal itself: every name and every operator in them is qualified.
DECLARE
  users_path text := pg_catalog.current_setting('search_path');
  installed integer;
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  -- Several sessions may find the ledger missing at the same moment.
  PERFORM pg_catalog.pg_advisory_xact_lock(7310022437264650033);

  IF EXISTS (
    SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'segue' AND p.proname = 'version' AND p.pronargs = 0
  ) THEN
    EXECUTE 'SELECT segue.version()' INTO installed;
  END IF;
  IF installed > 1 THEN
    PERFORM pg_catalog.set_config('search_path', users_path, true);
    RETURN;
  END IF;

  -- Asked beforehand, for IF NOT EXISTS wants the right to create even where nothing is created.
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'segue') THEN
    CREATE SCHEMA segue;
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'segue' AND c.relname = 'ledger'
  ) THEN
    CREATE TABLE segue.ledger (
      session uuid PRIMARY KEY,
      -- The highest number that was committed.
      seq bigint NOT NULL DEFAULT 0,
      -- Bit k is set where number seq - k was committed, for k from 0 to 63.
      recent bigint NOT NULL DEFAULT 0,
      -- -infinity in the rows of padding.
      opened_at timestamptz NOT NULL DEFAULT pg_catalog.now()
    ) WITH (
      -- Room on the page of a row for its next versions: no index entry is written then.
      fillfactor = 25,
      autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
      autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000,
      autovacuum_vacuum_cost_delay = 0, vacuum_truncate = false
    );
    -- In a small table the planner prefers to read it all, and a prepared seal would keep doing so
    -- after many sessions have joined. These rows are never sealed, retired or purged.
    INSERT INTO segue.ledger (session, seq, opened_at)
    SELECT pg_catalog.md5('segue padding ' || i)::pg_catalog.uuid, -1, '-infinity'
    FROM pg_catalog.generate_series(1, 1000) AS i;
    ANALYZE segue.ledger;
  END IF;

  CREATE OR REPLACE FUNCTION segue.version() RETURNS integer
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1';

  -- Called by the seal's UPDATE where the number that it brings is taken.
  CREATE OR REPLACE FUNCTION segue.fenced(taken bigint, wanted bigint) RETURNS bigint
  LANGUAGE plpgsql VOLATILE AS $function$
  BEGIN
    RAISE EXCEPTION USING
      ERRCODE = 'SG001',
      MESSAGE = pg_catalog.format('commit %s of this session is taken: commit %s was sealed', $2, $1),
      DETAIL = 'Another attempt of the same transaction, or a later one, has committed.',
      HINT = 'This attempt must be rolled back.';
  END
  $function$;

  CREATE OR REPLACE FUNCTION segue.seal(session uuid, number bigint) RETURNS bigint
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $function$
  DECLARE
    taken bigint;
  BEGIN
    UPDATE segue.ledger AS l
    SET recent = CASE WHEN ($2 OPERATOR(pg_catalog.-) l.seq) OPERATOR(pg_catalog.<=) 63
          THEN (l.recent OPERATOR(pg_catalog.<<) ($2 OPERATOR(pg_catalog.-) l.seq)::pg_catalog.int4)
            OPERATOR(pg_catalog.|) 1::pg_catalog.int8
          ELSE 1 END,
        seq = $2
    WHERE l.session OPERATOR(pg_catalog.=) $1 AND l.seq OPERATOR(pg_catalog.<) $2;
    IF FOUND THEN
      RETURN $2;
    END IF;
    SELECT l.seq INTO taken FROM segue.ledger AS l WHERE l.session OPERATOR(pg_catalog.=) $1;
    IF FOUND THEN
      RETURN segue.fenced(taken, $2);
    END IF;
    RAISE EXCEPTION USING
      ERRCODE = 'SG002',
      MESSAGE = 'this session has no row in segue.ledger',
      DETAIL = 'Its commits cannot be sealed: the row was never opened here, retired or purged.',
      HINT = 'Roll back, open a row and run the transaction again.';
  END
  $function$;

  CREATE OR REPLACE FUNCTION segue.look(sessions uuid[])
  RETURNS TABLE (session uuid, seq bigint, recent bigint)
  LANGUAGE sql STABLE SECURITY DEFINER AS $function$
    SELECT l.session, l.seq, l.recent FROM segue.ledger AS l
    WHERE l.session OPERATOR(pg_catalog.=) ANY ($1)
  $function$;

  -- Opens one row and retires another; a row that is there already stays as it is.
  CREATE OR REPLACE FUNCTION segue.open(opened uuid, retired uuid) RETURNS integer
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $function$
  BEGIN
    INSERT INTO segue.ledger (session) VALUES ($1) ON CONFLICT DO NOTHING;
    DELETE FROM segue.ledger AS l
    WHERE l.session OPERATOR(pg_catalog.=) $2
      AND l.session OPERATOR(pg_catalog.<>) $1
      AND l.opened_at OPERATOR(pg_catalog.>) '-infinity'::pg_catalog.timestamptz;
    RETURN 1;
  END
  $function$;

  -- For the administrator. A row in use for longer than older_than must not exist: clients rotate.
  CREATE OR REPLACE FUNCTION segue.purge(older_than interval) RETURNS bigint
  LANGUAGE plpgsql VOLATILE AS $function$
  DECLARE
    purged bigint;
  BEGIN
    DELETE FROM segue.ledger AS l
    WHERE l.opened_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) $1)
      AND l.opened_at OPERATOR(pg_catalog.>) '-infinity'::pg_catalog.timestamptz;
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
  END
  $function$;

  REVOKE ALL ON FUNCTION segue.version(), segue.fenced(bigint, bigint), segue.seal(uuid, bigint),
    segue.look(uuid[]), segue.open(uuid, uuid), segue.purge(interval) FROM PUBLIC;
  {GRANTS}
  PERFORM pg_catalog.set_config('search_path', users_path, true);
END
