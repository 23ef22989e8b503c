-- Removes the ledger, and nothing else: whatever of the user's depends on it, or lives in its
-- schema, makes this fail (2BP01) and leaves everything as it was.
DO $segue$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace
      WHERE nspname OPERATOR(pg_catalog.=) 'segue') THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.pg_advisory_xact_lock(7310022437264650033);
  DROP FUNCTION IF EXISTS segue.seal(uuid, bigint), segue.fenced(bigint, bigint),
    segue.look(uuid[]), segue.open(uuid, uuid), segue.purge(interval), segue.version() RESTRICT;
  DROP FUNCTION IF EXISTS segue.claim(uuid), segue.claim_after(uuid, uuid),
    segue.out_of_order(uuid), segue.claimed(uuid[]), segue.purge_submissions(interval) RESTRICT;
  DROP TABLE IF EXISTS segue.ledger, segue.submission RESTRICT;
  DROP SCHEMA IF EXISTS segue RESTRICT;
END
$segue$
