-- Notifications: what may be posted, and that nothing is posted without a task that sends it.

-- What is wrong with a posted document, by its fields; an empty object: nothing.
create or replace function statement.judge_notification(p_document jsonb) returns jsonb language plpgsql stable as $$
declare
    v_faults    jsonb := '{}';
    v_field     text;
    v_value     jsonb;
    v_channels  jsonb := p_document -> 'channels';
begin
    foreach v_field in array array['title', 'body'] loop
        v_value := p_document -> v_field;
        v_faults := v_faults || coalesce((select jsonb_build_object(v_field, jsonb_build_array(f.fault)) from (select case
            when v_value is null then 'This field is required.'
            when jsonb_typeof(v_value) = 'null' then 'This field may not be null.'
            when jsonb_typeof(v_value) not in ('string', 'number') then 'Not a valid string.'
            when v_value #>> '{}' !~ '[^[:space:]]' then 'This field may not be blank.'
            when v_field = 'title' and length(v_value #>> '{}') > 255 then 'Ensure this field has no more than 255 characters.'
        end as fault) f where f.fault is not null), '{}');
    end loop;
    if jsonb_typeof(p_document -> 'user_id') not in ('string', 'number', 'null') or length(p_document ->> 'user_id') > 128 then
        v_faults := v_faults || '{"user_id": ["Not a valid string."]}';
    end if;
    if v_channels is null then
        v_faults := v_faults || '{"channels": ["This field is required."]}';
    elsif jsonb_typeof(v_channels) = 'null' then
        v_faults := v_faults || '{"channels": ["This field may not be null."]}';
    elsif jsonb_typeof(v_channels) <> 'array' then
        v_faults := v_faults || jsonb_build_object('channels', jsonb_build_array(format('Expected a list of items but got type "%s".', case jsonb_typeof(v_channels)
            when 'string' then 'str' when 'object' then 'dict' when 'boolean' then 'bool' else case when v_channels::text ~ '[.]' then 'float' else 'int' end end)));
    elsif v_channels = '[]' then
        v_faults := v_faults || '{"channels": ["This list may not be empty."]}';
    else
        v_faults := v_faults || coalesce((select jsonb_build_object('channels', jsonb_object_agg(c.n - 1, jsonb_build_array(case jsonb_typeof(c.channel)
                when 'null' then 'This field may not be null.' else format('"%s" is not a valid choice.', c.channel #>> '{}') end)))
            from jsonb_array_elements(v_channels) with ordinality c (channel, n)
            where jsonb_typeof(c.channel) <> 'string' or not exists (select from statement.sender s where s.medium = c.channel #>> '{}')
            having count(*) > 0), '{}');
    end if;
    return v_faults;
end $$;
comment on function statement.judge_notification(jsonb) is 'What is wrong with a posted notification.';

-- Promises: the notification, a log for each channel and the task that sends it are there, or nothing is. Returns its id.
-- Called by: the endpoint, anybody's SQL. SQLSTATEs: RP400, with all faults as its detail; RB001 (there is no task to be had).
create or replace function statement.create_notification(p_user_id text, p_title text, p_body text, p_channels jsonb) returns bigint language plpgsql volatile as $$
declare
    v_faults    jsonb := statement.judge_notification(jsonb_strip_nulls(
        jsonb_build_object('user_id', p_user_id, 'title', p_title, 'body', p_body, 'channels', p_channels)));
    v_channels  jsonb;
    v_id        bigint;
begin
    if v_faults <> '{}' then
        raise exception using errcode = 'RP400', detail = v_faults::text,
            message = (select string_agg(format('%s: %s', f.key, case jsonb_typeof(f.value) when 'array' then f.value ->> 0 else f.value::text end), ' ') from jsonb_each(v_faults) f);
    end if;
    select jsonb_agg(c.channel order by c.n) into v_channels
    from (select c.channel, min(c.n) as n from jsonb_array_elements_text(p_channels) with ordinality c (channel, n) group by c.channel) c;
    insert into statement.notification (user_id, title, body, channels, created_at, updated_at)
    values (p_user_id, p_title, p_body, v_channels, rowbeat.now_(), rowbeat.now_()) returning id into v_id;
    insert into statement.notification_log (notification_id, medium, created_at)
    select v_id, c.channel, rowbeat.now_() from jsonb_array_elements_text(v_channels) with ordinality c (channel, n) order by c.n;
    perform rowbeat.enqueue('statement.send_notification', jsonb_build_object('notification_id', v_id));
    return v_id;
end $$;
comment on function statement.create_notification(text, text, text, jsonb) is 'Posts a notification; returns its id.';

-- POST /api/notifications/send/
create or replace function statement.post_notification(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_document  jsonb := coalesce(nullif(request #> '{input,*}', 'null'), '{}');
    v_faults    jsonb;
begin
    if jsonb_typeof(v_document) <> 'object' then
        return '{"status": 400, "body": {"non_field_errors": ["Invalid data. Expected a dictionary."]}}';
    end if;
    v_faults := statement.judge_notification(v_document);
    if v_faults <> '{}' then
        return jsonb_build_object('status', 400, 'body', v_faults);
    end if;
    return jsonb_build_object('status', 201, 'body', jsonb_build_object('status', 'queued', 'id', statement.create_notification(
        v_document ->> 'user_id', v_document ->> 'title', v_document ->> 'body', v_document -> 'channels')));
end $$;
comment on function statement.post_notification(jsonb) is 'POST /api/notifications/send/';
