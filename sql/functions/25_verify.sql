-- Whether backups are what they should be: comparing with the tables. What an operator should know is in 60_status.sql.

-- Promises: each row of the table is compared with its newest image. different: they are not equal; lost: the row is not in the table and was not
--   deleted; unknown: it has no image; inexact: the row has a value that JSON cannot hold (a JSON null in a column, minus zero, arrays that do not
--   begin at 1), so what is restored differs in that. keys: some of those. Changes on the way to the backup are not held against it.
-- Called by: rowbeat backup verify. Locks: the backup's consumer, until the caller's transaction ends. SQLSTATEs: 42P01.
create or replace function rowbeat.verify_backup(p_backup text, p_limit integer default 20)
returns table (backup text, rows bigint, images bigint, equal bigint, different bigint, lost bigint, unknown bigint, inexact bigint, keys jsonb)
language plpgsql volatile set search_path = '' set timezone = 'UTC' set extra_float_digits = 1 set intervalstyle = 'postgres'
    set bytea_output = 'hex' set datestyle = 'ISO' set jit = off as $$
declare
    v_table  record;
    v_keys   text[];
    v_join   record;
begin
    perform rowbeat.catch_up();
    select * into v_table from rowbeat.restore_tables(array[p_backup]);
    v_keys := rowbeat.key_columns(v_table.table_name);
    select t.* into v_join from rowbeat.typed_keys(v_table.table_name, v_keys) t;
    return query execute format(
        'with pending as materialized (
             select rowbeat.live_key(c) as key from rowbeat.change c join rowbeat.change_consumer r on r.name = ''backup''
             where c.table_name = %4$s and (c.xid >= pg_snapshot_xmax(r.position) or c.xid = any (array(select pg_snapshot_xip(r.position))))
         ), joined as (
             select i.*, l.%1$I is not null as live, (l.*)::%2$s as found, to_jsonb(l.*) as now
             from (select i.key, i.image, %5$s
                 from (select n.key, n.row as image from rowbeat.images_at($2, null) n where n.operation <> ''DELETE'') i%6$s) i
             full join %2$s l on %3$s
             offset 0
         ), compared as materialized (
             select coalesce(j.key, rowbeat.pick_key(j.now, $3)) as key, j.live, j.key is not null as imaged,
                 case when j.image = j.now then true else to_jsonb(jsonb_populate_record(j.found, j.image)) = j.now end as same,
                 j.live and not %7$s as inexact
             from joined j
         ), settled as (
             select c.* from compared c where c.key not in (select p.key from pending p where p.key is not null)
         )
         select $1, count(*) filter (where s.live), count(*) filter (where s.imaged), count(*) filter (where s.live and s.imaged and s.same),
             count(*) filter (where s.live and s.imaged and not s.same), count(*) filter (where not s.live), count(*) filter (where not s.imaged),
             count(*) filter (where s.inexact),
             (select coalesce(jsonb_agg(jsonb_build_object(''key'', w.key, ''is'', w.problem)), ''[]'') from (
                 select s.key, case when not s.live then ''lost'' when not s.imaged then ''unknown'' when not s.same then ''different'' else ''inexact'' end as problem
                 from settled s where not s.live or not s.imaged or not s.same or s.inexact limit $4) w)
         from settled s',
        v_keys[1], rowbeat.table_name(v_table.table_name), v_join.matches, v_table.table_name::oid, v_join.picked, v_join.conversion,
        case when rowbeat.plain_columns(v_table.table_name) then 'true'
            else format('jsonb_populate_record(null::%s, j.now) operator(pg_catalog.*=) j.found', rowbeat.table_name(v_table.table_name)) end)
    using p_backup, v_table.source, v_keys, p_limit;
end $$;
comment on function rowbeat.verify_backup(text, integer) is 'Compares a table with its newest images.';

-- What changed in a table's columns since the baseline; null: nothing.
create or replace function rowbeat.changed_columns(p_backup rowbeat.backup) returns text
language sql stable set search_path = '' as $$
    select nullif(concat_ws(', ',
        (select 'new: ' || string_agg(c, ', ') from unnest(n.columns) c where c <> all (p_backup.columns)),
        (select 'no more: ' || string_agg(c, ', ') from unnest(p_backup.columns) c where c <> all (n.columns))), '')
    from (select rowbeat.described_columns(p_backup.table_name) as columns) n
$$;
comment on function rowbeat.changed_columns(rowbeat.backup) is 'What changed in a table''s columns since the baseline.';
