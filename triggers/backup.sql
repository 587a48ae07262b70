-- The backup table's own triggers: what can be backed up, and the capture triggers that follow it.

-- Promises: name and source are filled in; what cannot be backed up is refused. Another table under the same name is its successor: what was
--   captured of the former one is kept first. A new baseline begins with the columns as they are now.
-- SQLSTATEs: RB006 (no ordinary table, or without a primary key).
create or replace function rowbeat.fill_backup() returns trigger
language plpgsql set search_path = '' as $$
begin
    if tg_op = 'UPDATE' then
        if old.table_name <> new.table_name then
            perform rowbeat.catch_up();
            new.baselined_at := null;
        end if;
        if old.name <> new.name then
            update rowbeat.backup_source s set name = new.name where s.id = old.source;
        end if;
        -- A backup whose table is gone can still be ended.
        if not new.enabled then
            return new;
        end if;
    end if;
    perform rowbeat.refuse_unwatchable(new.table_name);
    if rowbeat.key_columns(new.table_name) = '{}' then
        raise exception '% cannot be backed up: it has no primary key', new.table_name using errcode = 'RB006',
            hint = format('Rows are told apart by it: alter table %s add primary key (…).', rowbeat.table_name(new.table_name));
    end if;
    new.name := coalesce(new.name, rowbeat.table_name(new.table_name));
    insert into rowbeat.backup_source (name, table_name, schema_name)
    select new.name, rowbeat.table_name(c.oid), n.nspname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = new.table_name
    on conflict (name) do update set table_name = excluded.table_name, schema_name = excluded.schema_name
    returning id into new.source;
    if new.baselined_at is null and (tg_op = 'INSERT' or old.baselined_at is not null) then
        new.columns := rowbeat.described_columns(new.table_name);
        new.baseline_key := null;
        new.broken := null;
        new.broken_at := null;
    end if;
    return new;
end $$;
comment on function rowbeat.fill_backup() is 'Completes a backup and refuses what cannot be backed up.';

create or replace trigger fill_backup
    before insert or update of name, table_name, enabled, baselined_at on rowbeat.backup
    for each row execute function rowbeat.fill_backup();

-- Promises: what was captured before a backup goes is kept.
create or replace function rowbeat.finish_backup() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform rowbeat.catch_up();
    return old;
end $$;
comment on function rowbeat.finish_backup() is 'Keeps what was captured before a backup goes.';

create or replace trigger finish_backup before delete on rowbeat.backup
    for each row execute function rowbeat.finish_backup();

-- Promises: from this transaction on all changes of the table are captured, and the consumer reads them. Of an ended backup what the log
--   holds is still kept.
-- Runs as the writer of the row, who needs the TRIGGER privilege on the table. Locks: ShareRowExclusive on the table when a trigger is to be made
--   (writers wait, readers do not), asked for at most two seconds; the consumer's row. SQLSTATEs: 55P03 (the table is busy: try again), 42501.
create or replace function rowbeat.install_backup() returns trigger
language plpgsql set search_path = '' set lock_timeout = '2s' as $$
declare
    v_statement  text;
begin
    if tg_op <> 'DELETE' and new.enabled then
        for v_statement in select s.statement from rowbeat.capture_statements(new.table_name, rowbeat.backup_operations()) s (statement, missing) where s.missing loop
            execute v_statement;
        end loop;
    end if;
    if tg_op <> 'INSERT' then
        perform rowbeat.refresh_capture(old.table_name);
    end if;
    if tg_op <> 'DELETE' then
        perform rowbeat.refresh_capture(new.table_name);
    end if;
    -- Not before the triggers: whoever wrote without them has ended by now, and the baseline sees it.
    insert into rowbeat.change_consumer as c (name, tables, position)
    values ('backup', array(select b.table_name from rowbeat.backup b), rowbeat.open_snapshot(pg_current_snapshot()))
    on conflict (name) do update set tables = excluded.tables;
    if tg_op = 'DELETE' then
        perform rowbeat.drop_unneeded_triggers(old.table_name);
    end if;
    perform rowbeat.announce('change');
    return null;
end $$;
comment on function rowbeat.install_backup() is 'Lets the capture triggers and the consumer follow a backup.';

create or replace trigger install_backup
    after insert or delete or update of table_name, enabled, baselined_at on rowbeat.backup
    for each row execute function rowbeat.install_backup();
