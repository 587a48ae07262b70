-- name: route
-- $1 how many changes at most
select rowbeat.route_changes($1)

-- name: add_watch
-- $1 table · $2 definition · $3 operations · $4 name or null · $5 columns or null · $6 condition · $7 columns to leave out · $8 grain
-- $9 payload · $10 unique key · $11 debounce, milliseconds · $12 serial key · $13 from · $14 until · $15 zone · $16 origins
select rowbeat.watch($1::text::regclass, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::bigint * interval '1 millisecond', $12,
    $13::text::timestamp, $14::text::timestamp, $15, $16)

-- name: remove_watch
-- $1 name
select rowbeat.unwatch($1)

-- name: list_watches
select to_jsonb(w) as watch from rowbeat.watches w

-- name: plan_watch
-- The statements that a watch would run. $1 table · $2 operations
select s.statement from rowbeat.capture_statements($1::text::regclass, $2) s where s.missing

-- name: inert_triggers
-- Capture triggers that no watch needs any more, as statements that drop them.
select u.statement from rowbeat.unneeded_trigger u order by 1

-- name: count_replay
-- $1 watch · $2 from · $3 to. No row: there is no such watch.
select r.changes from rowbeat.watch w cross join lateral rowbeat.count_replay(w.name, $2, $3) r where w.name = $1

-- name: replay
-- $1 watch · $2 from · $3 to · $4 after this change · $5 how many · $6 dry run
select r.read, r.made, r.failed, r.last_seq from rowbeat.replay_changes($1, $2, $3, $4, $5, $6) r

-- name: failures
-- What a watch could not do. $1 watch. No row: there is no such watch.
select coalesce(sum(cardinality(f.seqs)), 0)::bigint as changes, max(f.id) as last_id
from rowbeat.watch w left join rowbeat.watch_failure f on f.watch = w.name where w.name = $1 group by w.name

-- name: retry_failures
-- $1 watch · $2 how many · $3 the last of them
select rowbeat.retry_failures($1, $2, false, $3) as tried

-- name: notify_trigger
-- The statement that installs the classic trigger on a table. $1 table
select format('create or replace trigger %I after insert or update or delete on %s for each row execute function rowbeat.notify_table_change()',
    left(c.relname, 55) || '_trigger', rowbeat.table_name(c.oid)) as statement
from pg_catalog.pg_class c where c.oid = $1::text::regclass
