-- From a change to what people hear of it. The watch of each alert makes a task of each change; these tasks have one serial key an alert,
-- so they run one after another in the order of the log, also when a node dies with one. The unique key of the events makes them once.

-- The columns that say nothing about a row's content.
create or replace function freight.content(p_row jsonb) returns jsonb language sql immutable as $$
    select p_row - '{id,created,modified,created_at,updated_at,organization_id}'::text[]
$$;
comment on function freight.content(jsonb) is 'A row without the columns that do not count as a change.';

-- Promises: when the change concerns the alert, its event exists, once, and with it everything that follows from it; whoever hears of it
--   hears of all or nothing. Returns the event, or why there is none. Safe to repeat.
create or replace function freight.deliver(
    p_alert_id uuid, p_operation text, p_source text, p_origin text, p_table text, p_key jsonb, p_old jsonb, p_new jsonb, p_at timestamptz
) returns jsonb language plpgsql volatile as $$
declare
    v_alert   freight.table_change_alert;
    v_zone    text;
    v_row     jsonb := coalesce(case when p_operation = 'DELETE' then p_old else p_new end, 'null');
    v_judged  record;
    v_event   freight.alert_event;
begin
    select * into v_alert from freight.table_change_alert a where a.id = p_alert_id;
    select o.time_zone into v_zone from freight.organization o where o.id = v_alert.organization_id;
    if v_alert.id is null or not p_operation = any (freight.operations(v_alert.database_action))
        or p_source = 'POSTGRES' and p_at < (v_alert.wanted_since ->> p_operation)::timestamptz then
        return '{"passed": "not wanted"}';
    elsif not freight.is_live(v_alert.is_active, v_alert.effective_date, v_alert.expiration_date, freight.local_date(v_zone, p_at)) then
        return '{"passed": "not live"}';
    elsif p_operation <> 'TRUNCATE' and (v_row ->> 'organization_id' <> v_alert.organization_id::text
            or v_row ->> 'organization_id' is null and p_source = 'POSTGRES') then
        return '{"passed": "another organization"}';
    elsif p_operation = 'UPDATE' and freight.content(p_old) is not distinct from freight.content(p_new) then
        return '{"passed": "nothing changed"}';
    elsif p_operation <> 'TRUNCATE' and v_alert.conditional_logic is not null then
        select * into v_judged from freight.judge_conditions(v_alert.conditional_logic, v_row);
        perform freight.note_alert_error(v_alert.id, v_judged.problem);
        if not v_judged.holds then
            return '{"passed": "conditions"}';
        end if;
    end if;
    insert into freight.alert_event (alert_id, organization_id, source, origin, operation, table_name, row_key, old_row, new_row, occurred_at, routed_at)
    values (v_alert.id, v_alert.organization_id, p_source, p_origin, p_operation, p_table, p_key, p_old, p_new, p_at, rowbeat.now_())
    on conflict (alert_id, source, origin) do nothing returning * into v_event;
    if not found then
        return '{"passed": "delivered already"}';
    end if;
    perform freight.tell(v_alert, v_event, v_row);
    return jsonb_build_object('event', v_event.id);
end $$;
comment on function freight.deliver(uuid, text, text, text, text, jsonb, jsonb, jsonb, timestamptz) is 'Makes an event of a change that concerns an alert.';

-- The function of the watches' tasks.
create or replace function freight.deliver_change(payload jsonb) returns jsonb language sql volatile as $$
    select freight.deliver(substr(payload ->> 'watch', length('freight.alert.') + 1)::uuid, payload ->> 'operation', 'POSTGRES', payload ->> 'change',
        payload ->> 'table', payload -> 'key', payload -> 'old', payload -> 'new', (payload ->> 'at')::timestamptz)
$$;
comment on function freight.deliver_change(jsonb) is 'Delivers a change to an alert.';

-- Promises: the problem is on record; null changes nothing. Written only when it is a new one.
create or replace function freight.note_alert_error(p_alert_id uuid, p_problem text) returns void language sql volatile as $$
    update freight.table_change_alert a set last_error = p_problem where a.id = p_alert_id and p_problem is not null and a.last_error is distinct from p_problem
$$;
comment on function freight.note_alert_error(uuid, text) is 'Notes what went wrong with an alert.';

-- Notification, mail, task and message of an event.
create or replace function freight.tell(p_alert freight.table_change_alert, p_event freight.alert_event, p_row jsonb) returns void
language plpgsql volatile as $$
declare
    v_key      text := format('freight.alert/%s/%s', p_alert.id, p_event.id);
    v_message  text := jsonb_build_object('event_id', p_event.id)::text;
    v_problem  text;
begin
    if p_alert.listener_name is not null then
        if rowbeat.read_setting('freight', 'notify_rows')::boolean and p_event.operation <> 'TRUNCATE' then
            v_message := (p_row - '{created,modified,created_at,updated_at}'::text[])::text;
            if octet_length(v_message) > 7999 then
                v_message := jsonb_build_object('event_id', p_event.id, 'truncated', true)::text;
            end if;
        end if;
        perform pg_notify(p_alert.listener_name, v_message);
    end if;
    if p_alert.email_recipients <> '' then
        perform freight.enqueue_mail('freight.send_table_change_alert', jsonb_build_object(
            'organization_id', p_alert.organization_id, 'to', to_jsonb(freight.addresses(p_alert.email_recipients)),
            'subject', coalesce(p_alert.custom_subject, 'Table Change Alert: ' || coalesce(p_alert.table_name, p_alert.topic)),
            'text', freight.describe_row(p_event, p_row), 'email_profile_id', p_alert.email_profile_id,
            'sender', rowbeat.read_setting('freight', 'alert_sender'), 'event_id', p_event.id), v_key);
    end if;
    if p_alert.task_definition is not null then
        begin
            perform rowbeat.enqueue(p_alert.task_definition, to_jsonb(p_event), p_queue => 'table_changes', p_max_attempts => 4, p_unique_key => v_key);
        exception when sqlstate 'RB001' then
            -- Nobody else has to wait for the definition.
            get stacked diagnostics v_problem = message_text;
            perform freight.note_alert_error(p_alert.id, v_problem);
        end;
    end if;
    if p_alert.sink_topic is not null then
        perform rowbeat.enqueue('freight.produce_event', jsonb_build_object('topic', p_alert.sink_topic, 'key', p_event.row_key,
            'message', freight.envelope(p_event)), p_unique_key => v_key);
    end if;
end $$;
comment on function freight.tell(freight.table_change_alert, freight.alert_event, jsonb) is 'Tells an event to everybody who wants it.';

-- A line for each column, in the order of the table; what the table no longer has comes last.
create or replace function freight.describe_row(p_event freight.alert_event, p_row jsonb) returns text language sql stable as $$
    select coalesce(string_agg(format('Field: %s, Value: %s', f.key, f.value), E'\n' order by a.attnum nulls last, f.key),
        format('Operation: %s, Table: %s', p_event.operation, p_event.table_name))
    from jsonb_each_text(case when jsonb_typeof(p_row) = 'object' then p_row else '{}' end) f
    left join pg_catalog.pg_attribute a on a.attname = f.key and not a.attisdropped
        and a.attrelid = (select w.table_name from rowbeat.watch w where w.name = 'freight.alert.' || p_event.alert_id)
$$;
comment on function freight.describe_row(freight.alert_event, jsonb) is 'The body of an alert''s mail.';

-- The event as a change envelope for Kafka.
create or replace function freight.envelope(p_event freight.alert_event) returns jsonb language sql stable as $$
    select jsonb_build_object('op', case p_event.operation when 'INSERT' then 'c' when 'UPDATE' then 'u' when 'DELETE' then 'd' else 't' end,
        'before', p_event.old_row, 'after', p_event.new_row, 'source', jsonb_build_object('table', p_event.table_name),
        'ts_ms', floor(extract(epoch from p_event.occurred_at) * 1000)::bigint)
$$;
comment on function freight.envelope(freight.alert_event) is 'An event as a change envelope.';

create or replace function freight.plan_message(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select jsonb_build_object('topic', task #> '{payload,topic}', 'key', coalesce(task #>> '{payload,key}', ''), 'payload', task #> '{payload,message}')
    where cardinality(responses) = 0
$$;
comment on function freight.plan_message(jsonb, jsonb[]) is 'Plans an event''s message.';
