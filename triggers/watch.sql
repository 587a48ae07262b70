-- The watch table's own triggers: what a watch is in full, whether it makes sense, and the capture triggers that follow it.

-- Promises: name and operations in their usual form; what can be known to be wrong is refused, and an edit wipes old errors.
-- Its expressions are planned as the router will run them, on no changes. Runs as the writer of the row. No row for a trigger that outlived its
-- plugin.
-- SQLSTATEs: RB006 (not a table that can be watched), 42703 (no such column), 22023 (what makes no sense), 42501 (an expression of a plugin's),
--   and what the server says of an expression.
create or replace function rowbeat.fill_watch() returns trigger
language plpgsql set search_path = '' as $$
declare
    v_columns  text[];
begin
    if tg_op = 'INSERT' and rowbeat.outlived_plugin(new.definition) then
        return null;
    end if;
    if new.serial_key is not null and rowbeat.constant_key(new.serial_key) is null
        and exists (select from rowbeat.plugin p where p.role_name = current_user) then
        raise exception 'a plugin''s serial key is a plain quoted text, not %', new.serial_key using errcode = 'insufficient_privilege',
            hint = 'Expressions are evaluated with the daemon''s rights: they are for operators.';
    end if;
    new.name := coalesce(new.name, format('%s_on_%s', new.definition, new.table_name));
    new.operations := (select array_agg(distinct upper(o)) from unnest(new.operations) o);
    if tg_op = 'UPDATE' then
        new.suspended_at := null;
        new.last_error := null;
        new.last_error_at := null;
        -- A watch whose table is gone can still be disabled.
        if not new.enabled then
            return new;
        end if;
    end if;
    perform rowbeat.refuse_unwatchable(new.table_name);
    new.known_as := rowbeat.table_name(new.table_name);
    perform now() at time zone new.time_zone;
    v_columns := rowbeat.missing_columns(new.table_name, new.columns || new.exclude);
    if v_columns <> '{}' then
        raise exception '% has no column "%"', new.known_as, v_columns[1] using errcode = 'undefined_column',
            hint = 'columns and exclude of a watch name columns of its table, as they are written in the catalogue.';
    elsif rowbeat.key_columns(new.table_name) && new.exclude then
        raise exception 'the key of % cannot be left out', new.known_as using errcode = '22023';
    elsif new.grain = 'statement' and rowbeat.capture_level(new.table_name) = 'row' then
        raise exception 'statements on % cannot be told apart', new.known_as using errcode = '22023',
            hint = 'Partitioned tables and tables without a primary key are captured row by row: use the grain transaction.';
    elsif (new.unique_key is not null or new.debounce is not null)
        and exists (select from rowbeat.task_definition d where d.name = new.definition and d.unique_until <> 'start') then
        raise exception 'a change after the claim would be lost: definition "%" holds unique keys until the end', new.definition
            using errcode = '22023', hint = 'Set its unique_until to start.';
    end if;
    if rowbeat.has_expressions(new) then
        begin
            perform rowbeat.concerned(new, '{}', '{}', '-infinity');
        exception when others then
            raise exception 'an expression of watch "%" cannot be used: %', new.name, sqlerrm using errcode = sqlstate,
                hint = 'It sees old and new, rows of the table, and change; names in it need their schema.';
        end;
    end if;
    return new;
end $$;
comment on function rowbeat.fill_watch() is 'Completes a watch and refuses one that makes no sense.';

create or replace trigger fill_watch
    before insert or update of name, table_name, operations, definition, columns, condition, exclude, grain, payload, unique_key, debounce,
        serial_key, effective_from, effective_until, time_zone, origins, enabled on rowbeat.watch
    for each row execute function rowbeat.fill_watch();

-- Promises: from this transaction on, what enabled watches want of a table is captured, and nothing else of it is logged; capture
--   triggers that no watch needs any more are dropped where whoever does this may, else they stay, inert, for rowbeat watch prune.
-- Runs as the writer of the row, who needs the TRIGGER privilege on the table. Locks: ShareRowExclusive on the watched table when a
--   trigger is to be made (writers wait, readers do not), asked for at most two seconds; when one is dropped AccessExclusive, half a
--   second, after which it stays. SQLSTATEs: 55P03 (the table is busy: try again), 42501.
create or replace function rowbeat.install_capture() returns trigger
language plpgsql set search_path = '' set lock_timeout = '2s' as $$
declare
    v_statement  text;
begin
    if tg_op <> 'DELETE' and new.enabled then
        for v_statement in select s.statement from rowbeat.capture_statements(new.table_name, new.operations) s (statement, missing) where s.missing loop
            execute v_statement;
        end loop;
    end if;
    if tg_op <> 'DELETE' then
        perform rowbeat.refresh_capture(new.table_name);
    end if;
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and (old.table_name, old.operations) is distinct from (new.table_name, new.operations) then
        perform rowbeat.refresh_capture(old.table_name);
        perform rowbeat.drop_unneeded_triggers(old.table_name);
    end if;
    return null;
end $$;
comment on function rowbeat.install_capture() is 'Lets the capture triggers follow a watch.';

create or replace trigger install_capture
    after insert or delete or update of table_name, operations, columns, exclude, enabled on rowbeat.watch
    for each row execute function rowbeat.install_capture();
