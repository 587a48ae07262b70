-- Watches and the change log. The capture triggers are in triggers/.

-- Promises: the watch exists as asked, its triggers are installed. Returns its name. Safe to repeat: an existing watch
--   of that name is changed. Locks and SQLSTATEs: as the insert, see triggers/watch.sql.
create or replace function rowbeat.watch(
    p_table       regclass,
    p_definition  text,
    p_operations  text[] default '{INSERT,UPDATE,DELETE}',
    p_name        text default null
) returns text
language plpgsql volatile set search_path = '' as $$
declare
    v_name text;
begin
    insert into rowbeat.watch (name, table_name, definition, operations)
    values (p_name, p_table, p_definition, (select array_agg(upper(o)) from unnest(p_operations) o))
    on conflict (name) do update
    set table_name = excluded.table_name, definition = excluded.definition, operations = excluded.operations, enabled = true
    returning name into v_name;
    return v_name;
end $$;
comment on function rowbeat.watch(regclass, text, text[], text) is 'Watches a table: each change becomes a task of the definition. Returns the watch''s name.';

-- Promises: the watch is gone; its triggers stay, inert, until rowbeat watch prune. False: there was none.
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
language sql stable as $$
    select coalesce(array_agg(a.attname::text order by k.n), '{}')
    from pg_catalog.pg_index i
    cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, n)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = p_table and i.indisprimary
$$;
comment on function rowbeat.key_columns(regclass) is 'Columns of the table''s primary key, in order.';

-- The part of a row that identifies it; null without a key.
create or replace function rowbeat.pick(p_row jsonb, p_columns text[]) returns jsonb
language sql immutable parallel safe as $$
    select jsonb_object_agg(c, p_row -> c) from unnest(p_columns) c
$$;
comment on function rowbeat.pick(jsonb, text[]) is 'The named fields of an object.';

-- Promises: the next piece of what became visible since the router's position has become tasks: each committed change
--   once per matching watch, none of a rolled-back one, whatever the order of commits.
--   Returns how many changes were read; as long as that is p_limit, there is more.
-- How: a position is a snapshot. The difference to a newer one is what was in progress then, or began later, and is
--   visible now; rows never change, so it can be read in pieces, in order of writing.
-- Called by: every daemon's router. Locks: the consumer's row, skipped when another router holds it (returns 0).
create or replace function rowbeat.route_changes(p_limit integer default 1000) returns integer
language plpgsql volatile set search_path = '' as $$
declare
    v_reader  rowbeat.change_consumer;
    v_read    integer;
    v_last    bigint;
begin
    select * into v_reader from rowbeat.change_consumer c where c.name = 'router' for update skip locked;
    if not found then
        return 0;
    end if;
    if v_reader.target is null then
        v_reader.target := pg_current_snapshot();
        v_reader.after_seq := 0;
    end if;
    with piece as materialized (
        select c.* from rowbeat.change c
        where (c.xid >= pg_snapshot_xmax(v_reader.position)
               or c.xid = any (array(select pg_snapshot_xip(v_reader.position))))
          and pg_visible_in_snapshot(c.xid, v_reader.target) and c.seq > v_reader.after_seq
        order by c.seq limit p_limit
    ), made as (
        insert into rowbeat.task (definition, payload, cause)
        select w.definition,
            jsonb_build_object('watch', w.name, 'table', c.table_name::text, 'operation', c.operation, 'key', c.key,
                'old', c.old, 'new', c.new, 'session_user', c.login_role, 'actor', c.actor, 'at', c.at, 'change', c.seq),
            jsonb_build_object('kind', 'watch', 'name', w.name, 'change', c.seq)
        from piece c
        join rowbeat.watch w on w.table_name = c.table_name and w.enabled and c.operation = any (w.operations) and w.created_at <= c.at
        order by c.seq, w.name
    )
    select count(*), max(p.seq) into v_read, v_last from piece p;
    if v_read = p_limit then
        update rowbeat.change_consumer c set target = v_reader.target, after_seq = v_last, read_at = rowbeat.now_()
        where c.name = 'router';
    elsif v_read > 0 or v_reader.after_seq > 0 or rowbeat.position_is_stale(v_reader) then
        update rowbeat.change_consumer c set position = v_reader.target, target = null, after_seq = 0, read_at = rowbeat.now_()
        where c.name = 'router';
    end if;
    return v_read;
end $$;
comment on function rowbeat.route_changes(integer) is 'Turns the next piece of the change log into tasks; returns how many changes it read.';

-- An idle reader need not write its position at every look, but now and then: the older it is, the longer its list of
-- transactions that were in progress.
create or replace function rowbeat.position_is_stale(p_reader rowbeat.change_consumer) returns boolean
language sql volatile as $$
    select p_reader.read_at < (select rowbeat.now_()) - interval '1 minute'
$$;
comment on function rowbeat.position_is_stale(rowbeat.change_consumer) is 'Whether an idle reader should move its position forward.';
