-- Watches: what can be watched, which triggers that takes, and what of the log concerns a watch.

-- Promises: the watch exists as asked, its triggers are installed. Returns its name. Safe to repeat: an existing watch
--   of that name is changed. Locks and SQLSTATEs: as the insert, see triggers/watch.sql.
create or replace function rowbeat.watch(
    p_table            regclass,
    p_definition       text,
    p_operations       text[] default '{INSERT,UPDATE,DELETE}',
    p_name             text default null,
    p_columns          text[] default null,
    p_condition        text default null,
    p_exclude          text[] default '{}',
    p_grain            text default 'row',
    p_payload          text default null,
    p_unique_key       text default null,
    p_debounce         interval default null,
    p_serial_key       text default null,
    p_effective_from   timestamp default null,
    p_effective_until  timestamp default null,
    p_time_zone        text default 'UTC',
    p_origins          text[] default '{}'
) returns text
language plpgsql volatile set search_path = '' as $$
declare
    v_name  text;
begin
    insert into rowbeat.watch (name, table_name, definition, operations, columns, condition, exclude, grain, payload, unique_key, debounce,
        serial_key, effective_from, effective_until, time_zone, origins)
    values (p_name, p_table, p_definition, p_operations, p_columns, p_condition, p_exclude, p_grain, p_payload, p_unique_key, p_debounce,
        p_serial_key, p_effective_from, p_effective_until, p_time_zone, p_origins)
    on conflict (name) do update
    set table_name = excluded.table_name, definition = excluded.definition, operations = excluded.operations, columns = excluded.columns,
        condition = excluded.condition, exclude = excluded.exclude, grain = excluded.grain, payload = excluded.payload,
        unique_key = excluded.unique_key, debounce = excluded.debounce, serial_key = excluded.serial_key,
        effective_from = excluded.effective_from, effective_until = excluded.effective_until, time_zone = excluded.time_zone,
        origins = excluded.origins, enabled = true
    returning name into v_name;
    return v_name;
end $$;
comment on function rowbeat.watch(regclass, text, text[], text, text[], text, text[], text, text, text, interval, text, timestamp, timestamp, text, text[]) is
    'Watches a table: each change becomes a task of the definition. Returns the watch''s name.';

-- Promises: the watch is gone, and its triggers where the caller may drop them; else these stay, inert, until rowbeat watch prune.
--   False: there was none.
create or replace function rowbeat.unwatch(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
begin
    delete from rowbeat.watch w where w.name = p_name;
    return found;
end $$;
comment on function rowbeat.unwatch(text) is 'Removes a watch; false when there is none of that name.';

-- The table's name, always with its schema: regclass leaves it out where the search path finds the table.
create or replace function rowbeat.table_name(p_table regclass) returns text
language sql stable set search_path = '' as $$
    select p_table::text
$$;
comment on function rowbeat.table_name(regclass) is 'The table''s name, quoted and with its schema.';

-- Which columns identify a row of the table, in key order; empty without a primary key.
create or replace function rowbeat.key_columns(p_table regclass) returns text[]
language sql stable set search_path = '' as $$
    select coalesce(array_agg(a.attname::text order by k.n), '{}')
    from pg_catalog.pg_index i
    cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = p_table and i.indisprimary
$$;
comment on function rowbeat.key_columns(regclass) is 'Columns of the table''s primary key, in order.';

-- Those of the names that are no columns of the table.
create or replace function rowbeat.missing_columns(p_table regclass, p_columns text[]) returns text[]
language sql stable set search_path = '' as $$
    select array(select c from unnest(p_columns) c where not exists (
        select from pg_catalog.pg_attribute a where a.attrelid = p_table and a.attname = c and a.attnum > 0 and not a.attisdropped))
$$;
comment on function rowbeat.missing_columns(regclass, text[]) is 'Those of the names that are no columns of the table.';

-- The part of a row that the columns name; null without columns.
create or replace function rowbeat.pick(p_row jsonb, p_columns text[]) returns jsonb
language sql immutable parallel safe as $$
    select jsonb_object_agg(c, p_row -> c) from unnest(p_columns) c
$$;
comment on function rowbeat.pick(jsonb, text[]) is 'The named fields of an object.';

-- The part of a row that identifies it; null without a key. (Nulls in it: the key's columns have other names by now, see live_key.)
create or replace function rowbeat.pick_key(p_image jsonb, p_key text[]) returns jsonb
language sql stable parallel safe as $$
    select case cardinality(p_key)
        when 0 then null
        when 1 then jsonb_build_object(p_key[1], p_image -> p_key[1])
        when 2 then jsonb_build_object(p_key[1], p_image -> p_key[1], p_key[2], p_image -> p_key[2])
        else rowbeat.pick(p_image, p_key)
    end
$$;
comment on function rowbeat.pick_key(jsonb, text[]) is 'The key''s fields of a row.';

-- The key of a change. A primary key has no nulls: one that has was captured by names that its columns had before.
create or replace function rowbeat.live_key(p_change rowbeat.change) returns jsonb
language sql stable set search_path = '' as $$
    select case when jsonb_path_exists(p_change.key, '$.* ? (@ == null)')
        then rowbeat.pick_key(coalesce(p_change.new, p_change.old), rowbeat.key_columns(p_change.table_name)) else p_change.key end
$$;
comment on function rowbeat.live_key(rowbeat.change) is 'The key of a change, also when the key''s columns were renamed a moment before.';

-- Promises: returns for an ordinary or partitioned table that is no partition, not temporary and not rowbeat's. SQLSTATEs: RB006.
create or replace function rowbeat.refuse_unwatchable(p_table regclass) returns void
language plpgsql stable set search_path = '' as $$
declare
    v_class  pg_catalog.pg_class;
begin
    select * into v_class from pg_catalog.pg_class c where c.oid = p_table;
    if v_class.relkind not in ('r', 'p') or v_class.relpersistence = 't' or v_class.relnamespace = 'rowbeat'::regnamespace then
        raise exception '% cannot be watched', p_table using errcode = 'RB006',
            hint = 'Only ordinary and partitioned tables outside schema rowbeat can, and no temporary ones.';
    elsif v_class.relispartition then
        raise exception '% cannot be watched: it is a partition', p_table using errcode = 'RB006',
            hint = format('Watch %s, with a condition if need be.', pg_partition_root(p_table)::regclass);
    elsif v_class.oid is null then
        raise exception 'the table % is gone', p_table::oid using errcode = 'undefined_table';
    end if;
end $$;
comment on function rowbeat.refuse_unwatchable(regclass) is 'Refuses what cannot be watched, with RB006.';

-- Capture is by statement where there is a key to pair old and new rows by, and by row otherwise.
create or replace function rowbeat.capture_level(p_table regclass) returns text
language sql stable set search_path = '' as $$
    select case when c.relkind = 'p' or rowbeat.key_columns(p_table) = '{}' then 'row' else 'statement' end
    from pg_catalog.pg_class c where c.oid = p_table
$$;
comment on function rowbeat.capture_level(regclass) is 'Whether a table is captured by statement or by row.';

-- What a backup wants of a table.
create or replace function rowbeat.backup_operations() returns text[]
language sql immutable parallel safe as $$ select '{INSERT,UPDATE,DELETE,TRUNCATE}'::text[] $$;
comment on function rowbeat.backup_operations() is 'The operations that a backup captures: all.';

-- The triggers that a watch of these operations needs: what changes a key concerns INSERT and DELETE, too.
create or replace function rowbeat.captured_operations(p_table regclass, p_operations text[]) returns text[]
language sql stable set search_path = '' as $$
    select array(select distinct upper(o) from unnest(p_operations || case
        when upper(p_operations::text)::text[] && '{INSERT,DELETE}' and rowbeat.key_columns(p_table) <> '{}' then array['UPDATE'] end) o)
$$;
comment on function rowbeat.captured_operations(regclass, text[]) is 'Operations whose triggers a watch needs.';

-- The capture triggers that a table has, not counting those that partitions inherited.
create or replace view rowbeat.capture_trigger as
select t.tgrelid::regclass as table_name, t.tgname as name, o.operation, case when t.tgtype & 1 = 1 then 'row' else 'statement' end as level,
    t.tgenabled <> 'D' as enabled
from pg_catalog.pg_trigger t
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join (values (4, 'INSERT'), (8, 'DELETE'), (16, 'UPDATE'), (32, 'TRUNCATE')) o (bit, operation) on t.tgtype & o.bit > 0
where p.pronamespace = 'rowbeat'::regnamespace and p.proname in ('capture_statement', 'capture_row', 'capture_truncate')
    and not t.tgisinternal and t.tgparentid = 0;
comment on view rowbeat.capture_trigger is 'The capture triggers on watched tables.';

-- The statements that install capture of these operations on a table, and which of them are still to be run. A trigger that a partition
-- inherits must not have the name of one that it has itself, or it could not be attached: hence the number in it.
-- SQLSTATEs: RB006 (not a table that can be watched).
create or replace function rowbeat.capture_statements(p_table regclass, p_operations text[], out statement text, out missing boolean) returns setof record
language plpgsql stable set search_path = '' as $$
declare
    v_operation  text;
    v_level      text := rowbeat.capture_level(p_table);
    v_has        record;
begin
    perform rowbeat.refuse_unwatchable(p_table);
    foreach v_operation in array rowbeat.captured_operations(p_table, p_operations) loop
        select t.name, t.level, t.enabled into v_has from rowbeat.capture_trigger t where t.table_name = p_table and t.operation = v_operation;
        statement := format('create or replace trigger %I after %s on %s %s',
            coalesce(v_has.name, 'rowbeat_capture_' || lower(v_operation)
                || case when (select c.relkind from pg_catalog.pg_class c where c.oid = p_table) = 'p' then '_' || p_table::oid else '' end),
            v_operation, p_table, case
                when v_operation = 'TRUNCATE' then 'for each statement execute function rowbeat.capture_truncate()'
                when v_level = 'row' then 'for each row execute function rowbeat.capture_row()'
                else format('%s for each statement execute function rowbeat.capture_statement()', case v_operation
                    when 'INSERT' then 'referencing new table as new_rows'
                    when 'DELETE' then 'referencing old table as old_rows'
                    else 'referencing old table as old_rows new table as new_rows' end)
            end);
        missing := v_has.name is null or not v_has.enabled or v_operation <> 'TRUNCATE' and v_has.level <> v_level;
        return next;
    end loop;
end $$;
comment on function rowbeat.capture_statements(regclass, text[]) is 'The statements that install capture on a table, and which of them are still to be run.';

-- Promises: the capture triggers know what the watches and the backup want of a table by now; a backup leaves no column out. Runs as its
--   owner: whoever writes a watch may not see all others. Called by: the triggers of watches and backups, the pruner. Locks: its row.
create or replace function rowbeat.refresh_capture(p_table regclass) returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
    if not exists (select from pg_catalog.pg_class c where c.oid = p_table) then
        delete from rowbeat.capture c where c.table_name = p_table;
        return;
    end if;
    -- First the lock, then, in a statement that sees what others have committed meanwhile, the sum.
    insert into rowbeat.capture as c (table_name, operations, key_columns) values (p_table, '{}', '{}')
    on conflict (table_name) do update set operations = c.operations;
    update rowbeat.capture c
    set operations = s.operations, key_columns = s.key_columns, omitted = s.omitted
    from (
        select array(select distinct o from (
                select unnest(w.operations) from rowbeat.watch w where w.table_name = p_table and w.enabled
                union all
                select unnest(rowbeat.backup_operations()) from rowbeat.backup b where b.table_name = p_table and b.enabled) x (o) order by o) as operations,
            rowbeat.key_columns(p_table) as key_columns,
            array(select e from rowbeat.watch w cross join unnest(w.exclude) e where w.table_name = p_table and w.enabled
                    and not exists (select from rowbeat.backup b where b.table_name = p_table and b.enabled)
                group by e having count(distinct w.name) = (select count(*) from rowbeat.watch a where a.table_name = p_table and a.enabled)
                order by e) as omitted
    ) s
    where c.table_name = p_table and (c.operations, c.key_columns, c.omitted) is distinct from (s.operations, s.key_columns, s.omitted);
end $$;
comment on function rowbeat.refresh_capture(regclass) is 'Tells the capture triggers what the watches and the backup want of a table.';

-- Capture triggers that no watch and no backup needs (disabled ones count), as statements that drop them.
create or replace view rowbeat.unneeded_trigger as
select t.table_name, format('drop trigger %I on %s', t.name, rowbeat.table_name(t.table_name)) as statement,
    pg_has_role(current_user, c.relowner, 'USAGE') as droppable
from rowbeat.capture_trigger t
join pg_catalog.pg_class c on c.oid = t.table_name
where not exists (select from rowbeat.watch w where w.table_name = t.table_name and t.operation = any (rowbeat.captured_operations(w.table_name, w.operations)))
    and not exists (select from rowbeat.backup b where b.table_name = t.table_name);
comment on view rowbeat.unneeded_trigger is 'Capture triggers that no watch and no backup needs any more.';

-- Promises: they are gone where the caller may drop them and nobody is in the way. Called by: the watches' triggers.
-- Locks: AccessExclusive on the table, asked for half a second at most.
create or replace function rowbeat.drop_unneeded_triggers(p_table regclass) returns void
language plpgsql volatile set search_path = '' set lock_timeout = '500ms' as $$
declare
    v_statement  text;
begin
    for v_statement in select u.statement from rowbeat.unneeded_trigger u where u.table_name = p_table and u.droppable loop
        execute v_statement;
    end loop;
exception when lock_not_available or object_in_use or insufficient_privilege then
    -- They are inert, and rowbeat watch prune finds them.
    null;
end $$;
comment on function rowbeat.drop_unneeded_triggers(regclass) is 'Drops capture triggers of a table that no watch needs, where that is possible.';

-- The value of a key that is a plain quoted text, the same for every change: nothing has to be evaluated for it. Null: it is an expression.
create or replace function rowbeat.constant_key(p_key text) returns text
language sql immutable as $$
    select substr(p_key, 2, length(p_key) - 2) where p_key ~ '^''[^''\\]*''$'
$$;
comment on function rowbeat.constant_key(text) is 'The value of a key that is a plain quoted text; null: it is an expression.';

-- Whether something has to be evaluated for a watch.
create or replace function rowbeat.has_expressions(p_watch rowbeat.watch) returns boolean
language sql immutable as $$
    select coalesce(p_watch.condition, p_watch.payload) is not null
        or p_watch.unique_key is not null and rowbeat.constant_key(p_watch.unique_key) is null
        or p_watch.serial_key is not null and rowbeat.constant_key(p_watch.serial_key) is null
$$;
comment on function rowbeat.has_expressions(rowbeat.watch) is 'Whether something has to be evaluated for a watch.';

-- Promises: those of the changes that concern the watch, with the values of its expressions. p_since: earlier ones do not.
-- The expressions see old and new as rows of the table as it is now, without what is left out, and `change`, a row of the log.
-- Called by: the router, replays, and the check of a new watch. SQLSTATEs: whatever an expression raises; 42703, 42P01 (a column or the table is gone).
create or replace function rowbeat.concerned(
    p_watch rowbeat.watch, p_seqs bigint[], p_slots smallint[], p_since timestamptz
) returns table (seq bigint, payload jsonb, unique_key text, serial_key text)
language plpgsql stable set search_path = '' as $$
declare
    v_gone  text[] := rowbeat.missing_columns(p_watch.table_name, p_watch.columns || p_watch.exclude);
    v_row   text := rowbeat.table_name(p_watch.table_name);
begin
    if v_gone <> '{}' and (rowbeat.has_expressions(p_watch) or exists (select from pg_catalog.pg_class c where c.oid = p_watch.table_name)) then
        raise exception 'column "%" of % is gone', v_gone[1], p_watch.known_as using errcode = 'undefined_column',
            hint = 'It was renamed or dropped: edit columns and exclude of the watch.';
    end if;
    p_seqs := array(
        select c.seq from rowbeat.change c
        where c.seq = any (p_seqs) and c.slot = any (p_slots) and c.table_name = p_watch.table_name
            and c.operation = any (p_watch.operations) and c.at >= p_since
            and (c.origin is null or p_watch.origins && array[c.origin, '*'])
            and (p_watch.effective_from is null or c.at at time zone p_watch.time_zone >= p_watch.effective_from)
            and (p_watch.effective_until is null or c.at at time zone p_watch.time_zone < p_watch.effective_until)
            and (p_watch.columns is null or c.operation <> 'UPDATE'
                or exists (select from unnest(p_watch.columns) k where c.old -> k is distinct from c.new -> k)));
    if not rowbeat.has_expressions(p_watch) then
        return query select s, null::jsonb, rowbeat.constant_key(p_watch.unique_key), rowbeat.constant_key(p_watch.serial_key) from unnest(p_seqs) s;
        return;
    elsif not exists (select from pg_catalog.pg_class c where c.oid = p_watch.table_name) then
        raise exception 'the table % is gone', p_watch.known_as using errcode = 'undefined_table',
            hint = 'What a watch evaluates needs the table: remove the watch.';
    end if;
    return query execute format(
        'select change.seq, %s, %s, %s
         from (select c.seq, c.operation, rowbeat.live_key(c) as key, c.login_role, c.actor, c.origin, c.at, c.old - $3 as old_image, c.new - $3 as new_image
             from rowbeat.change c where c.seq = any ($1) and c.slot = any ($2) offset 0) change
         cross join lateral jsonb_populate_record(null::%s, change.old_image) as old
         cross join lateral jsonb_populate_record(null::%s, change.new_image) as new
         where %s',
        case when p_watch.payload is null then 'null::jsonb' else format(E'coalesce(to_jsonb((%s\n)), ''null'')', p_watch.payload) end,
        case when p_watch.unique_key is null then 'null::text' else format(E'(%s\n)::text', p_watch.unique_key) end,
        case when p_watch.serial_key is null then 'null::text' else format(E'(%s\n)::text', p_watch.serial_key) end,
        v_row, v_row, case when p_watch.condition is null then 'true' else format(E'(%s\n)', p_watch.condition) end)
    using p_seqs, p_slots, p_watch.exclude;
end $$;
comment on function rowbeat.concerned(rowbeat.watch, bigint[], smallint[], timestamptz) is 'Which of these changes concern a watch, and the values of its expressions.';
