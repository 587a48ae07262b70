-- name: route
-- $1 how many changes at most
select rowbeat.route_changes($1)

-- name: add_watch
-- $1 table · $2 definition · $3 operations · $4 name or null
select rowbeat.watch($1::text::regclass, $2, $3, $4)

-- name: remove_watch
-- $1 name
select rowbeat.unwatch($1)

-- name: list_watches
select jsonb_build_object('name', w.name, 'table', rowbeat.table_name(w.table_name), 'operations', w.operations, 'definition', w.definition,
    'enabled', w.enabled, 'created_at', w.created_at) as watch
from rowbeat.watch w order by w.name

-- name: plan_watch
-- The statements that a watch would run. $1 table · $2 operations
select s.statement from rowbeat.capture_statements($1::text::regclass, $2) s (statement)

-- name: inert_triggers
-- Capture triggers that no watch needs any more, as statements that drop them.
select format('drop trigger %I on %s', t.tgname, rowbeat.table_name(c.oid)) as statement
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_proc p on p.oid = t.tgfoid
where p.pronamespace = 'rowbeat'::regnamespace and p.proname in ('capture_statement', 'capture_row', 'capture_truncate')
    and not t.tgisinternal and t.tgparentid = 0
    and not exists (select from rowbeat.watch w cross join unnest(w.operations) o
        where w.table_name = t.tgrelid and 'rowbeat_capture_' || lower(o) = t.tgname)
order by 1

-- name: notify_trigger
-- The statement that installs the classic trigger on a table. $1 table
select format('create or replace trigger %I after insert or update or delete on %s for each row execute function rowbeat.notify_table_change()',
    left(c.relname, 55) || '_trigger', rowbeat.table_name(c.oid)) as statement
from pg_catalog.pg_class c where c.oid = $1::text::regclass
