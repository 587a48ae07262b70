-- Sending: one task for each log, of the definition that its medium's sender needs. Locks: the notification, then the log; a plan locks the log alone.

-- The definition that sends by a kind of sender.
create or replace function statement.definition_of(p_kind text) returns text language sql immutable as $$
    select 'statement.send_log' || case when p_kind = 'simulate' then '' else '_' || p_kind end
$$;
comment on function statement.definition_of(text) is 'The definition that sends by a kind of sender.';

-- What is to be done about a log now. verdict: success (nothing), refused (with the message), or the kind of its sender.
create or replace function statement.judge_log(p_log_id bigint, out verdict text, out message text, out log statement.notification_log,
    out notification statement.notification, out sender statement.sender, out address text) language plpgsql stable as $$
begin
    select l.* into log from statement.notification_log l where l.id = p_log_id;
    select n.* into notification from statement.notification n where n.id = log.notification_id;
    select s.* into sender from statement.sender s where s.medium = log.medium and s.is_active;
    select r.address into address from statement.recipient r where r.user_id = notification.user_id and r.medium = log.medium;
    if log.status = 'success' then
        verdict := 'success';
    elsif sender.medium is null then
        verdict := 'refused';
        message := format('Unsupported medium: %s', log.medium);
    elsif sender.kind <> 'simulate' and address is null then
        verdict := 'refused';
        message := format('No %s address for user %s', log.medium, coalesce(notification.user_id, 'null'));
    else
        verdict := sender.kind;
    end if;
end $$;
comment on function statement.judge_log(bigint) is 'What is to be done about a log.';

-- Promises: the log's notification and the log are locked; false: there is no such log.
create or replace function statement.lock_log(p_log_id bigint) returns boolean language plpgsql volatile as $$
begin
    perform from statement.notification n
    where n.id = (select l.notification_id from statement.notification_log l where l.id = p_log_id) for update;
    perform from statement.notification_log l where l.id = p_log_id for update;
    return found;
end $$;
comment on function statement.lock_log(bigint) is 'Locks a log and its notification.';

-- Promises: a task sends the log, after any other that still does; one at a time whatever their definitions. Called by: whoever holds the log's lock.
create or replace function statement.enqueue_log(p_log_id bigint, p_kind text, p_attempts integer default null) returns bigint language sql volatile as $$
    select rowbeat.enqueue(statement.definition_of(p_kind), jsonb_build_object('log_id', p_log_id), p_max_attempts => p_attempts,
        p_unique_key => p_log_id::text, p_serial_key => 'statement.log ' || p_log_id)
$$;
comment on function statement.enqueue_log(bigint, text, integer) is 'Enqueues the sending of a log.';

-- Promises: the try is on record: a null message is a success. Called by: whoever holds the log's lock.
create or replace function statement.note_try(p_log_id bigint, p_message text, p_to_try boolean) returns void language sql volatile as $$
    update statement.notification_log l
    set status = case when p_message is null then 'success' else 'failed' end, attempts = l.attempts + 1, last_attempt_at = rowbeat.now_(),
        error_message = coalesce(p_message, ''), to_try = p_to_try
    where l.id = p_log_id
$$;
comment on function statement.note_try(bigint, text, boolean) is 'Records a try.';

-- Promises: the notification's status is what its logs say. Called by: whoever holds the notification's lock and has changed a log.
create or replace function statement.settle_notification(p_notification_id bigint) returns text language sql volatile as $$
    update statement.notification n
    set updated_at = rowbeat.now_(), status = (
        select case when count(*) filter (where l.status <> 'success' and l.to_try) > 0 then 'processing'
            when count(*) > 0 and count(*) filter (where l.status <> 'success') = 0 then 'sent' else 'failed' end
        from statement.notification_log l where l.notification_id = n.id)
    where n.id = p_notification_id
    returning n.status
$$;
comment on function statement.settle_notification(bigint) is 'Derives a notification''s status from its logs.';

-- Promises: every log that is not sent has a task of its own, or has failed for good; the status is right. Twice makes no second sending.
-- Called by: the task of the same name, with {"notification_id"}. Locks: the notification, then its logs.
create or replace function statement.send_notification(payload jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_id    bigint := (payload ->> 'notification_id')::bigint;
    v_log   bigint;
    v_what  record;
begin
    perform from statement.notification n where n.id = v_id for update;
    if not found then
        return '{"status": "gone"}';
    end if;
    for v_log in
        select l.id from statement.notification_log l where l.notification_id = v_id and l.status <> 'success' order by l.id for update
    loop
        select * into v_what from statement.judge_log(v_log);
        if v_what.sender is null then
            perform statement.note_try(v_log, v_what.message, false);
        else
            update statement.notification_log l set to_try = true where l.id = v_log;
            perform statement.enqueue_log(v_log, (v_what.sender).kind);
        end if;
    end loop;
    return jsonb_build_object('status', statement.settle_notification(v_id));
end $$;
comment on function statement.send_notification(jsonb) is 'Enqueues the sending of a notification, channel by channel.';

-- Promises: the simulated sending succeeds or fails; that it did is settled. Of another kind of sender: nothing, settling hands the log over.
-- Called by: the task of the same name, with {"log_id"}. Locks: the notification and the log, until it is settled.
create or replace function statement.send_log(payload jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_id    bigint := (payload ->> 'log_id')::bigint;
    v_what  record;
begin
    if statement.lock_log(v_id) then
        select * into v_what from statement.judge_log(v_id);
        if v_what.verdict = 'simulate' and (v_what.sender).simulate_failures <> 0 then
            raise exception 'simulated failure';
        end if;
    end if;
    return null;
end $$;
comment on function statement.send_log(jsonb) is 'Sends a log by the simulator.';

-- The effect of a real sender: a request, or a mail, that carries the log's id as idempotency key. Null: there is nothing (more) to send.
create or replace function statement.plan_log(task jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_id    bigint := (task #>> '{payload,log_id}')::bigint;
    v_what  record;
    v_data  jsonb;
begin
    if cardinality(responses) > 0 then
        return null;
    end if;
    perform from statement.notification_log l where l.id = v_id for update;
    select * into v_what from statement.judge_log(v_id);
    if not found or (v_what.log).id is null or statement.definition_of(v_what.verdict) <> task ->> 'definition' then
        return null;
    end if;
    v_data := jsonb_build_object('log_id', v_id, 'notification_id', (v_what.notification).id, 'medium', (v_what.log).medium,
        'user_id', (v_what.notification).user_id, 'address', v_what.address, 'title', (v_what.notification).title, 'body', (v_what.notification).body);
    if v_what.verdict = 'smtp' then
        return jsonb_strip_nulls(jsonb_build_object('connection', (v_what.sender).connection, 'to', v_what.address,
            'message_id', format('<statement-log-%s-%s@statement.invalid>', v_id, floor(extract(epoch from (v_what.log).created_at) * 1000)),
            'subject', case when (v_what.sender).template is null then statement.one_line((v_what.notification).title) end,
            'text', case when (v_what.sender).template is null then (v_what.notification).body end,
            'template', case when (v_what.sender).template is not null then jsonb_build_object('text', (v_what.sender).template,
                'subject', '{{ subject }}') end))
            || jsonb_build_object('data', v_data || jsonb_build_object('subject', statement.one_line((v_what.notification).title)));
    end if;
    -- Whatever the provider answers, its operator may mend it within the tries that are left.
    return jsonb_build_object('connection', (v_what.sender).connection, 'method', 'POST', 'headers', jsonb_build_object('Idempotency-Key', v_id::text),
            'retry', (select jsonb_agg(s) from generate_series(400, 499) s))
        || case when (v_what.sender).template is null then jsonb_build_object('body', v_data)
            else jsonb_build_object('template', (v_what.sender).template, 'data', v_data) end;
end $$;
comment on function statement.plan_log(jsonb, jsonb[]) is 'Plans the sending of a log by a real sender.';

create or replace function statement.one_line(p_text text) returns text language sql immutable as $$
    select regexp_replace(p_text, '[[:cntrl:]]+', ' ', 'g')
$$;
comment on function statement.one_line(text) is 'A text without line breaks.';

-- Promises: the ended attempt is on record in log and notification. A sender that has become another kind meanwhile gets the log, with the tries
--   that are left. Called by: the daemon, in the transaction that ends the attempt; of the simulator that is the sending itself.
-- Locks: the notification, then the log, then the sender of a simulated failure.
create or replace function statement.settle_log(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
declare
    v_id       bigint := (task #>> '{payload,log_id}')::bigint;
    v_done     boolean := outcome ->> 'outcome' = 'done';
    v_left     integer := (task ->> 'max_attempts')::integer - (task ->> 'failures')::integer;
    v_again    boolean := outcome ->> 'outcome' not in ('done', 'cancelled') and v_left > 1;
    v_message  text := coalesce(outcome #>> '{error,message}', outcome ->> 'outcome');
    v_what     record;
begin
    if not statement.lock_log(v_id) then
        return null;
    end if;
    select * into v_what from statement.judge_log(v_id);
    if v_what.verdict = 'success' then
        null;
    elsif not v_done then
        if v_message = 'simulated failure' then
            update statement.sender s set simulate_failures = s.simulate_failures - 1 where s.medium = (v_what.log).medium and s.simulate_failures > 0;
        end if;
        perform statement.note_try(v_id, v_message, v_again);
    elsif cardinality(responses) > 0 then
        perform statement.note_try(v_id, null, false);
    elsif v_what.verdict = 'refused' then
        perform statement.note_try(v_id, v_what.message, false);
    elsif statement.definition_of(v_what.verdict) <> task ->> 'definition' then
        perform statement.enqueue_log(v_id, v_what.verdict, v_left);
    elsif v_what.verdict = 'simulate' then
        insert into statement.simulated_message (log_id, medium, user_id, title, body, at)
        values (v_id, (v_what.log).medium, (v_what.notification).user_id, (v_what.notification).title, (v_what.notification).body, rowbeat.now_());
        raise notice 'simulated %, log %: %', (v_what.log).medium, v_id, statement.one_line((v_what.notification).title);
        perform statement.note_try(v_id, null, false);
    else
        raise exception 'the sender of % was changed meanwhile', (v_what.log).medium;
    end if;
    perform statement.settle_notification((v_what.log).notification_id);
    -- What a server refuses for good is tried again like everything else.
    return case when v_again and outcome ->> 'outcome' = 'rejected' then '{"retry_after": 10}' else outcome -> 'result' end;
end $$;
comment on function statement.settle_log(jsonb, jsonb, jsonb[]) is 'Records an ended attempt at a log.';

-- Promises: the failed logs of a notification get a new round; what succeeded, and what is still being tried, is left alone. Returns how many.
-- SQLSTATEs: RP404. Locks: the notification, then its logs.
create or replace function statement.resend(p_notification_id bigint) returns integer language plpgsql volatile as $$
declare
    v_again  integer;
begin
    perform from statement.notification n where n.id = p_notification_id for update;
    if not found then
        raise exception using errcode = 'RP404', message = format('There is no notification %s.', p_notification_id);
    end if;
    update statement.notification_log l set status = 'pending', to_try = true
    where l.notification_id = p_notification_id and l.status = 'failed' and not l.to_try;
    get diagnostics v_again = row_count;
    if v_again > 0 then
        update statement.notification n set status = 'pending', updated_at = rowbeat.now_() where n.id = p_notification_id;
        perform rowbeat.enqueue('statement.send_notification', jsonb_build_object('notification_id', p_notification_id));
    end if;
    return v_again;
end $$;
comment on function statement.resend(bigint) is 'Sends again what failed; returns how many channels that are.';

-- Promises: notifications whose tasks were cancelled while they waited are ended as failed, and no change of a transaction waits for the next one,
--   whatever became of its task; nor does a rebuild that is due. Returns how many ended.
-- Called by: the schedule of the same name. Locks: the notifications, without waiting. Safe in any number of copies.
create or replace function statement.sweep(payload jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_before  timestamptz := rowbeat.now_() - interval '5 minutes';
    v_live    bigint[];
    v_ended   bigint[] := '{}';
begin
    perform rowbeat.enqueue('statement.apply_changes', p_unique_key => 'statement.apply_changes');
    if exists (select from statement.notification n where n.status in ('pending', 'processing') and n.updated_at < v_before) then
        v_live := array_remove(array(
            select coalesce(l.notification_id, (t.payload ->> 'notification_id')::bigint)
            from rowbeat.own_task t left join statement.notification_log l on l.id = (t.payload ->> 'log_id')::bigint
            where t.definition like 'statement.send\_%' and t.finished_at is null), null);
        -- Whoever has a task by now had its time changed before.
        v_ended := array(select n.id from statement.notification n
            where n.status in ('pending', 'processing') and n.updated_at < v_before and n.id <> all (v_live) order by n.id for update skip locked);
        update statement.notification_log l set status = 'failed', to_try = false, error_message = coalesce(nullif(l.error_message, ''), 'cancelled')
        where l.notification_id = any (v_ended) and l.status <> 'success';
        perform statement.settle_notification(e) from unnest(v_ended) e;
    end if;
    return jsonb_build_object('ended', cardinality(v_ended));
end $$;
comment on function statement.sweep(jsonb) is 'Ends notifications whose tasks are gone.';
