-- Mails: every mail of freight is a task that is planned here, and each ended attempt is on record.

-- Enqueues a mail. Payload: organization_id, to, subject, text, and email_profile_id or sender; attachments and their data if there are any.
create or replace function freight.enqueue_mail(p_definition text, p_mail jsonb, p_unique_key text) returns bigint language sql volatile as $$
    select rowbeat.enqueue(p_definition, p_mail || jsonb_build_object('subject', regexp_replace(p_mail ->> 'subject', '[[:cntrl:]]+', ' ', 'g')),
        p_unique_key => p_unique_key)
$$;
comment on function freight.enqueue_mail(text, jsonb, text) is 'Enqueues a mail.';

-- The plan of a mail: one effect. The profile is looked up when the mail is sent, so that a mended one counts.
create or replace function freight.plan_mail(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'connection', coalesce(p.connection, rowbeat.read_setting('freight', 'mail_connection')),
        'from', coalesce(p.email, m.mail ->> 'sender'), 'to', m.mail -> 'to', 'subject', m.mail -> 'subject', 'text', m.mail -> 'text',
        'data', m.mail -> 'data', 'attachments', (
            select jsonb_agg(jsonb_build_object('name', a.file ->> 'name', 'content_type', 'text/plain; charset=utf-8', 'template', f.content))
            from jsonb_array_elements(m.mail -> 'attachments') a (file)
            join lateral (select convert_from(o.content, 'UTF8') as content from rowbeat.own_file o
                where o.plugin = 'freight' and o.path = 'templates/' || (a.file ->> 'template')) f on true)))
    from (select task -> 'payload' as mail where cardinality(responses) = 0) m
    left join freight.email_profile p on p.id = (m.mail ->> 'email_profile_id')::uuid
$$;
comment on function freight.plan_mail(jsonb, jsonb[]) is 'Plans a mail.';

-- Promises: the ended attempt is on record; never raises, for a mail that was sent would be sent again.
create or replace function freight.log_mail(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language plpgsql volatile as $$
begin
    insert into freight.email_log (organization_id, subject, to_email, error, task_id, at)
    select o.id, task #>> '{payload,subject}', (select string_agg(t, ', ') from jsonb_array_elements_text(task #> '{payload,to}') t),
        case when outcome ->> 'outcome' <> 'done' then coalesce(outcome #>> '{error,message}', outcome ->> 'outcome') end, (task ->> 'id')::bigint, rowbeat.now_()
    from freight.organization o where o.id = (task #>> '{payload,organization_id}')::uuid;
    return outcome -> 'result';
exception when others then
    raise warning 'freight could not log a mail: %', sqlerrm;
    return outcome -> 'result';
end $$;
comment on function freight.log_mail(jsonb, jsonb, jsonb[]) is 'Records an ended attempt at a mail.';
