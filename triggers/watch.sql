-- The watch table's own triggers: its name's default, and the capture triggers it installs.

-- Promises: name and operations in their usual form before the row is checked.
create or replace function rowbeat.fill_watch_defaults() returns trigger
language plpgsql set search_path = '' as $$
begin
    new.name := coalesce(new.name, format('%s_on_%s', new.definition, new.table_name));
    new.operations := (select array_agg(distinct upper(o)) from unnest(new.operations) o);
    return new;
end $$;
comment on function rowbeat.fill_watch_defaults() is 'Names a watch <definition>_on_<table> when it has no name.';

create or replace trigger fill_watch_defaults before insert or update on rowbeat.watch
    for each row execute function rowbeat.fill_watch_defaults();

-- The statements that install capture of these operations on a table: transition tables where there is a key to pair
-- old and new rows by, row level otherwise. SQLSTATEs: RB006 (not a table that can be watched).
create or replace function rowbeat.capture_statements(p_table regclass, p_operations text[]) returns setof text
language plpgsql stable set search_path = '' as $$
declare
    v_kind       "char" := (select c.relkind from pg_catalog.pg_class c where c.oid = p_table);
    v_key        text[] := rowbeat.key_columns(p_table);
    v_arguments  text := coalesce((select string_agg(quote_literal(k), ', ') from unnest(v_key) k), '');
    v_operation  text;
    v_body       text;
begin
    if v_kind is null or v_kind not in ('r', 'p') or p_table::text like 'rowbeat.%' then
        raise exception '% cannot be watched', p_table using errcode = 'RB006',
            hint = 'Only ordinary and partitioned tables outside schema rowbeat can.';
    end if;
    for v_operation in select upper(o) from unnest(p_operations) o loop
        v_body := case
            when v_operation = 'TRUNCATE' then 'for each statement execute function rowbeat.capture_truncate()'
            when v_kind = 'p' or v_key = '{}' then format('for each row execute function rowbeat.capture_row(%s)', v_arguments)
            else format('%s for each statement execute function rowbeat.capture_statement(%s)',
                case v_operation
                    when 'INSERT' then 'referencing new table as new_rows'
                    when 'DELETE' then 'referencing old table as old_rows'
                    else 'referencing old table as old_rows new table as new_rows'
                end, v_arguments)
        end;
        return next format('create or replace trigger %I after %s on %s %s',
            'rowbeat_capture_' || lower(v_operation), v_operation, p_table, v_body);
    end loop;
end $$;
comment on function rowbeat.capture_statements(regclass, text[]) is 'The statements that install capture on a table.';

-- Promises: after the statement every operation that a watch wants is captured on its table, from this transaction on.
-- Runs as the inserter, who needs the TRIGGER privilege on the table. Locks: ShareRowExclusive on the watched table
--   (writers wait, readers do not), asked for at most two seconds. Nothing is dropped: that would need the owner.
-- SQLSTATEs: RB006 (not a table that can be watched), 55P03 (the table is busy: try again), 42501.
create or replace function rowbeat.install_capture() returns trigger
language plpgsql set search_path = '' set lock_timeout = '2s' as $$
declare
    v_statement text;
begin
    for v_statement in select * from rowbeat.capture_statements(new.table_name, new.operations) loop
        execute v_statement;
    end loop;
    return null;
end $$;
comment on function rowbeat.install_capture() is 'Installs the capture triggers that a watch needs.';

create or replace trigger install_capture after insert or update on rowbeat.watch
    for each row execute function rowbeat.install_capture();
