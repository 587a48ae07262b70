-- Table-change alerts: what an alert is in full, and the watch that follows it.

-- A name of at most 63 bytes: a longer one is cut to 54 bytes at most and ends in a hash of all of it.
create or replace function freight.cut_name(p_name text) returns text language sql immutable as $$
    select case when octet_length(p_name) <= 63 then p_name
        else left(p_name, (select max(n) from generate_series(1, 54) n where octet_length(left(p_name, n)) <= 54)) || '_' || left(md5(p_name), 8) end
$$;
comment on function freight.cut_name(text) is 'A name that Postgres takes whole.';

-- The names of an alert on a table. Called by: the alerts' trigger.
create or replace function freight.alert_names(p_table text, p_action text, out function_name text, out trigger_name text, out listener_name text)
language sql immutable as $$
    select freight.cut_name(n.function || p_table), freight.cut_name(n.trigger || p_table), freight.cut_name(n.listener || p_table)
    from (values ('INSERT', 'notify_new_', 'after_insert_', 'new_added_'), ('UPDATE', 'notify_updated_', 'after_update_', 'updated_'),
        ('DELETE', 'notify_deleted_', 'after_delete_', 'deleted_'),
        ('BOTH', 'notify_new_or_updated_', 'after_insert_or_update_', 'new_or_updated_')) n (action, function, trigger, listener)
    where n.action = p_action
$$;
comment on function freight.alert_names(text, text) is 'Names of function, trigger and channel of an alert.';

-- The table that an alert names: one of schema freight, or schema.table; as written, else as SQL reads it. Looked up in the catalogue,
-- for this role may not use every schema. Null: there is none.
create or replace function freight.find_table(p_name text) returns oid language plpgsql stable as $$
declare
    v_parts  text[] := array[p_name];
    v_found  oid;
begin
    for v_round in 1..3 loop
        select c.oid into v_found from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and n.nspname = case when cardinality(v_parts) = 1 then 'freight' else v_parts[1] end
            and c.relname = v_parts[cardinality(v_parts)] and cardinality(v_parts) <= 2;
        exit when found;
        v_parts := case when v_round = 1 then array[split_part(p_name, '.', 1), substr(p_name, strpos(p_name, '.') + 1)] else parse_ident(p_name) end;
    end loop;
    return v_found;
exception when invalid_parameter_value then
    return null;
end $$;
comment on function freight.find_table(text) is 'The table that a name means, or null.';

create or replace function freight.has_column(p_table oid, p_column text) returns boolean language sql stable as $$
    select exists (select from pg_catalog.pg_attribute a where a.attrelid = p_table and a.attname = p_column and not a.attisdropped)
$$;
comment on function freight.has_column(oid, text) is 'Whether a table has a column.';

-- The operations of an action; who wants to hear of deleted rows wants to hear of a TRUNCATE.
create or replace function freight.operations(p_action text) returns text[] language sql immutable as $$
    select case p_action when 'BOTH' then '{INSERT,UPDATE}'::text[] when 'DELETE' then '{DELETE,TRUNCATE}' else array[p_action] end
$$;
comment on function freight.operations(text) is 'Operations that an alert''s action stands for.';

-- The one definition of being live. p_date is the organization's local date.
create or replace function freight.is_live(p_active boolean, p_effective date, p_expiration date, p_date date) returns boolean language sql immutable as $$
    select p_active and (p_effective is null or p_effective <= p_date) and (p_expiration is null or p_expiration >= p_date)
$$;
comment on function freight.is_live(boolean, date, date, date) is 'Whether an alert is live on a date.';

-- Whether an alert is live at an instant; null when there is no such alert.
create or replace function freight.alert_is_live(p_alert_id uuid, p_at timestamptz default null) returns boolean language sql volatile as $$
    select freight.is_live(a.is_active, a.effective_date, a.expiration_date, freight.local_date(o.time_zone, coalesce(p_at, rowbeat.now_())))
    from freight.table_change_alert a join freight.organization o on o.id = a.organization_id where a.id = p_alert_id
$$;
comment on function freight.alert_is_live(uuid, timestamptz) is 'Whether an alert is live at an instant.';

-- Promises: a table that can be alerted, or a refusal that says what to do. Mails and events about mails and events would never end.
-- SQLSTATEs: RP400, RP409.
create or replace function freight.check_alert_table(p_name text) returns oid language plpgsql stable as $$
declare
    v_table  oid := freight.find_table(p_name);
    v_class  record;
begin
    if v_table is null then
        raise exception using errcode = 'RP400', message = format('Table %s does not exist.', p_name);
    end if;
    select n.nspname, c.relname, c.relispartition, c.relpersistence into v_class
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = v_table;
    if v_class.nspname = 'freight' and v_class.relname in ('alert_event', 'email_log') or v_class.nspname = 'rowbeat'
        or v_class.relispartition or v_class.relpersistence = 't' then
        raise exception using errcode = 'RP400', message = format('Table %s cannot be alerted.', p_name);
    elsif not freight.has_column(v_table, 'organization_id') then
        raise exception using errcode = 'RP400', message = format('Table %s has no organization_id column.', p_name);
    elsif not has_schema_privilege(v_class.nspname, 'usage') or not has_table_privilege(v_table, 'trigger') then
        raise exception using errcode = 'RP409', message = format('Table %s cannot be alerted: role %s has no TRIGGER privilege on it.', p_name, current_user),
            hint = format('grant usage on schema %I to %I; grant trigger on %I.%I to %2$I;', v_class.nspname, current_user, v_class.nspname, v_class.relname);
    end if;
    return v_table;
end $$;
comment on function freight.check_alert_table(text) is 'The table of an alert, or why it cannot be one.';

-- Promises: the alert is complete and makes sense. SQLSTATEs: RP400, RP409.
create or replace function freight.judge_alert() returns trigger language plpgsql as $$
declare
    v_same   boolean := tg_op = 'UPDATE';
    v_table  oid;
begin
    new.name := trim(new.name);
    new.table_name := case when new.source = 'POSTGRES' then nullif(trim(new.table_name), '') end;
    new.topic := case when new.source = 'KAFKA' then nullif(trim(new.topic), '') end;
    new.task_definition := nullif(trim(new.task_definition), '');
    new.sink_topic := nullif(trim(new.sink_topic), '');
    new.custom_subject := nullif(trim(new.custom_subject), '');
    if new.source = 'KAFKA' and new.topic is null then
        raise exception using errcode = 'RP400', message = 'Topic is required when source is Kafka.';
    elsif new.source = 'POSTGRES' and new.table_name is null then
        raise exception using errcode = 'RP400', message = 'Table is required when source is Postgres.';
    elsif new.expiration_date < new.effective_date then
        raise exception using errcode = 'RP400', message = 'Expiration date cannot be before the effective date. Please try again.';
    end if;
    new.email_recipients := freight.check_addresses(coalesce(new.email_recipients, ''));
    if jsonb_typeof(new.conditional_logic) = 'null' then
        new.conditional_logic := null;
    end if;
    perform freight.check_conditions(new.conditional_logic);
    if v_same then
        v_same := (new.source, new.table_name, new.topic, new.organization_id) is not distinct from (old.source, old.table_name, old.topic, old.organization_id);
    end if;
    select n.* into new.function_name, new.trigger_name, new.listener_name
    from (select case when freight.find_table(new.table_name) is null then regexp_replace(new.table_name, '^.*\.', '')
        else (select c.relname from pg_catalog.pg_class c where c.oid = freight.find_table(new.table_name)) end as t) t
    cross join lateral freight.alert_names(t.t, new.database_action) n;
    -- An alert whose table is gone can still be disabled.
    if new.source = 'POSTGRES' and (new.is_active or not v_same) then
        v_table := freight.check_alert_table(new.table_name);
    end if;
    -- What was wanted before goes on being wanted since then; everything else from now on.
    new.wanted_since := (select jsonb_object_agg(o, coalesce(case when v_same and old.is_active then old.wanted_since -> o end, to_jsonb(rowbeat.now_())))
        from unnest(freight.operations(new.database_action)) o);
    if tg_op = 'INSERT' or not v_same or (new.is_active, new.database_action) is distinct from (old.is_active, old.database_action)
        or new.expiration_date is distinct from old.expiration_date then
        new.swept := false;
    end if;
    if not v_same or new.conditional_logic is distinct from old.conditional_logic or new.task_definition is distinct from old.task_definition then
        new.last_error := null;
    end if;
    return new;
end $$;
comment on function freight.judge_alert() is 'Completes an alert and refuses one that makes no sense.';
-- Not of last_error: an alert whose table is gone still says what went wrong.
create or replace trigger judge_alert before insert or update of organization_id, name, is_active, source, database_action, table_name, topic,
        effective_date, expiration_date, email_recipients, custom_subject, conditional_logic, task_definition, sink_topic, function_name, trigger_name,
        listener_name on freight.table_change_alert
    for each row execute function freight.judge_alert();

-- Promises: the alert's watch is as the alert wants it; capture begins with this transaction. Password hashes are left out.
create or replace function freight.watch_alert(p_alert freight.table_change_alert) returns void language plpgsql volatile as $$
declare
    v_watch    text := 'freight.alert.' || p_alert.id;
    v_table    regclass := freight.find_table(p_alert.table_name);
    v_exclude  text[] := array(select a.attname::text from pg_catalog.pg_attribute a
        where a.attrelid = v_table and a.attname in ('password_hash', 'password') and not a.attisdropped);
begin
    update rowbeat.watch w set table_name = v_table, operations = freight.operations(p_alert.database_action), exclude = v_exclude, enabled = true
    where w.name = v_watch;
    if not found then
        insert into rowbeat.watch (name, table_name, operations, definition, exclude, serial_key)
        values (v_watch, v_table, freight.operations(p_alert.database_action), 'freight.deliver_change', v_exclude, quote_literal(v_watch));
    end if;
end $$;
comment on function freight.watch_alert(freight.table_change_alert) is 'Writes the watch of an alert.';

-- Promises: rowbeat listen hears the alert's channel while the alert is live: an active one, from the beginning of its first local day
--   to the end of its last.
create or replace function freight.announce_alert(p_alert_id uuid) returns void language plpgsql volatile as $$
begin
    delete from rowbeat.listening l where l.plugin = 'freight' and l.name = p_alert_id::text;
    insert into rowbeat.listening (plugin, name, channel, starts_at, ends_at)
    select 'freight', a.id::text, a.listener_name, a.effective_date::timestamp at time zone o.time_zone,
        (a.expiration_date + 1)::timestamp at time zone o.time_zone
    from freight.table_change_alert a join freight.organization o on o.id = a.organization_id
    where a.id = p_alert_id and a.is_active and a.listener_name is not null;
end $$;
comment on function freight.announce_alert(uuid) is 'Lets people listen to an alert while it is live.';

-- Days are those of the organization's zone. At an installation: alerts that were there before.
create or replace function freight.announce_alerts() returns trigger language plpgsql as $$
begin
    perform freight.announce_alert(a.id) from freight.table_change_alert a where a.organization_id = new.id;
    return null;
end $$;
comment on function freight.announce_alerts() is 'Announces an organization''s alerts anew when its zone changes.';
create or replace trigger announce_alerts after update of time_zone on freight.organization
    for each row execute function freight.announce_alerts();
do $$
begin
    perform freight.announce_alert(a.id) from freight.table_change_alert a;
end $$;

-- Promises: from this transaction on exactly what active alerts want of a table is captured, and announced.
-- Locks: see rowbeat.watch; the alerted table shortly when its capture changes.
create or replace function freight.follow_alert() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' or new.source <> 'POSTGRES' or not new.is_active or new.swept then
        delete from rowbeat.watch w where w.name = 'freight.alert.' || coalesce(new.id, old.id);
    elsif tg_op = 'INSERT' or (new.source, new.is_active, new.swept, new.table_name, new.database_action)
            is distinct from (old.source, old.is_active, old.swept, old.table_name, old.database_action) then
        perform freight.watch_alert(new);
    end if;
    if tg_op <> 'UPDATE' or (new.organization_id, new.is_active, new.listener_name, new.effective_date, new.expiration_date)
            is distinct from (old.organization_id, old.is_active, old.listener_name, old.effective_date, old.expiration_date) then
        perform freight.announce_alert(coalesce(new.id, old.id));
    end if;
    return null;
end $$;
comment on function freight.follow_alert() is 'Lets a watch follow an alert.';
create or replace trigger follow_alert after insert or update or delete on freight.table_change_alert
    for each row execute function freight.follow_alert();

-- A doorbell for whoever keeps alerts in memory: the table is the truth.
create or replace trigger table_change_alert_trigger after insert or update or delete on freight.table_change_alert
    for each row execute function rowbeat.notify_table_change();

-- Promises: of alerts that have expired nothing is captured any more, once all that was written before has been read. Returns how many.
-- Called by: the schedule of the same name, at once after an installation. Safe to repeat, and in any number of copies.
create or replace function freight.sweep_alerts(payload jsonb default '{}') returns jsonb language plpgsql volatile as $$
declare
    v_now    timestamptz := rowbeat.now_();
    v_waits  timestamptz := (select c.waits_since from rowbeat.consumers c where c.name = 'router');
    v_alert  uuid;
    v_swept  integer := 0;
    v_lost   freight.table_change_alert;
begin
    for v_alert in
        select a.id from freight.table_change_alert a join freight.organization o on o.id = a.organization_id
        where a.source = 'POSTGRES' and a.is_active and not a.swept and a.expiration_date < freight.local_date(o.time_zone, v_now)
            and (v_waits is null or freight.local_date(o.time_zone, v_waits) > a.expiration_date)
        order by a.id for update of a skip locked
    loop
        update freight.table_change_alert a set swept = true where a.id = v_alert;
        v_swept := v_swept + 1;
    end loop;
    -- Watches that went with the plugin come back with it; a table that is gone meanwhile has none.
    for v_lost in
        select a.* from freight.table_change_alert a
        where a.source = 'POSTGRES' and a.is_active and not a.swept and freight.find_table(a.table_name) is not null
            and not exists (select from rowbeat.watch w where w.name = 'freight.alert.' || a.id)
    loop
        begin
            perform freight.watch_alert(v_lost);
        exception when others then
            perform freight.note_alert_error(v_lost.id, sqlerrm);
        end;
    end loop;
    return jsonb_build_object('swept', v_swept);
end $$;
comment on function freight.sweep_alerts(jsonb) is 'Ends the capture for expired alerts.';

-- Alerts, their names, and whether they are live.
create or replace view freight.active_trigger as
select a.id as alert_id, a.organization_id, a.name, a.source, a.table_name, a.topic, a.database_action, a.function_name, a.trigger_name, a.listener_name,
    a.is_active and (a.effective_date is null or a.effective_date <= t.today) and (a.expiration_date is null or a.expiration_date >= t.today) as is_live,
    w.name is not null as is_captured, coalesce(a.last_error, w.last_error) as last_error
from freight.table_change_alert a
join freight.organization o on o.id = a.organization_id
cross join lateral (select (rowbeat.now_() at time zone o.time_zone)::date as today) t
left join rowbeat.watch w on w.name = 'freight.alert.' || a.id;
comment on view freight.active_trigger is 'Every alert with its table and names: whether it is live, and whether its table is captured.';

-- What can be alerted.
create or replace view freight.watchable_table as
select n.nspname as schema_name, c.relname as table_name, case when n.nspname = 'freight' then c.relname else n.nspname || '.' || c.relname end as name
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'organization_id' and not a.attisdropped
where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
    and n.nspname <> all ('{rowbeat,information_schema}') and n.nspname !~ '^pg_'
    and c.relname !~ '^(silk_|django|auth_|contenttypes_|sessions_|notifications_|plugin|auditlog)'
    and not (n.nspname = 'freight' and c.relname in ('alert_event', 'email_log'));
comment on view freight.watchable_table is 'Tables that can be alerted.';
