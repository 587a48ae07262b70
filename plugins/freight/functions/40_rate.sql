-- Rates, and the mails about those that have run out.

-- Promises: the rate has a number that no other of its organization has or had. Locks: the organization's counter. SQLSTATEs: RP400.
create or replace function freight.number_rate() returns trigger language plpgsql as $$
declare
    v_given  bigint;
begin
    if new.expiration_date < new.effective_date then
        raise exception using errcode = 'RP400', message = 'Expiration Date must be after Effective Date. Please correct and try again.';
    elsif tg_op = 'UPDATE' then
        return new;
    elsif coalesce(new.rate_number, '') = '' then
        update freight.rate_counter c set last_number = c.last_number + 1 where c.organization_id = new.organization_id returning c.last_number into v_given;
        new.rate_number := 'R' || lpad(v_given::text, greatest(5, length(v_given::text)), '0');
    elsif new.rate_number ~ '^R[0-9]{1,9}$' then
        v_given := substr(new.rate_number, 2)::bigint;
        update freight.rate_counter c set last_number = v_given where c.organization_id = new.organization_id and c.last_number < v_given;
    end if;
    return new;
end $$;
comment on function freight.number_rate() is 'Numbers a new rate.';
create or replace trigger number_rate before insert or update on freight.rate
    for each row execute function freight.number_rate();

-- Promises: the text with {rate.<column>} filled in; {{ and }} are braces. SQLSTATEs: RP400 (malformed, or no such column).
create or replace function freight.fill_rate(p_text text, p_rate jsonb) returns text language plpgsql immutable as $$
declare
    v_token   text;
    v_filled  text := '';
begin
    for v_token in select m[1] from regexp_matches(p_text, '(\{\{|\}\}|\{rate\.[a-z_]+\}|[{}]|[^{}]+)', 'g') m loop
        if v_token in ('{', '}') or v_token like '{rate.%' and not p_rate ? substr(v_token, 7, length(v_token) - 7) then
            raise exception using errcode = 'RP400', message = format('%s is not a valid format string', p_text);
        end if;
        v_filled := v_filled || case when v_token in ('{{', '}}') then left(v_token, 1)
            when v_token like '{rate.%' then coalesce(p_rate ->> substr(v_token, 7, length(v_token) - 7), '') else v_token end;
    end loop;
    return v_filled;
end $$;
comment on function freight.fill_rate(text, jsonb) is 'Fills a rate into a text.';

create or replace function freight.check_notification() returns trigger language plpgsql as $$
declare
    v_columns  jsonb := (select jsonb_object_agg(a.attname, '') from pg_catalog.pg_attribute a
        where a.attrelid = 'freight.rate'::regclass and a.attnum > 0 and not a.attisdropped);
begin
    new.email_recipients := freight.check_addresses(coalesce(new.email_recipients, ''));
    perform freight.fill_rate(new.custom_subject, v_columns), freight.fill_rate(new.custom_content, v_columns);
    return new;
end $$;
comment on function freight.check_notification() is 'Tidies recipients, and refuses texts that could not be filled in.';
create or replace trigger check_notification before insert or update on freight.notification_setting
    for each row execute function freight.check_notification();

-- Promises: each rate that has run out, by its own organization's calendar, has been told to that organization's recipients, once for each
--   expiration date: the notice and its mail are one. Returns how many. Safe to repeat and in any number of copies.
create or replace function freight.send_expired_rates_notification(payload jsonb default '{}') returns jsonb language plpgsql volatile as $$
declare
    v_due   record;
    v_rate  jsonb;
    v_sent  integer := 0;
begin
    for v_due in
        select s as setting, r as rate, coalesce(s.email_profile_id, c.rate_expiration_email_profile_id) as profile_id
        from freight.notification_setting s
        join freight.organization o on o.id = s.organization_id
        join freight.rate r on r.organization_id = s.organization_id
        left join freight.billing_control c on c.organization_id = s.organization_id
        where s.notification_type = 'RATE_EXPIRATION' and s.send_notification and s.email_recipients <> ''
            and r.expiration_date <= freight.local_date(o.time_zone, rowbeat.now_())
            and not exists (select from freight.rate_expiration_notice n
                where n.setting_id = s.id and n.rate_id = r.id and n.expiration_date = r.expiration_date)
        order by o.name, r.rate_number
    loop
        insert into freight.rate_expiration_notice (setting_id, rate_id, expiration_date)
        values ((v_due.setting).id, (v_due.rate).id, (v_due.rate).expiration_date) on conflict do nothing;
        continue when not found;
        v_rate := to_jsonb(v_due.rate);
        update freight.rate_expiration_notice n set task_id = freight.enqueue_mail('freight.send_mail', jsonb_build_object(
            'organization_id', (v_due.setting).organization_id, 'to', to_jsonb(freight.addresses((v_due.setting).email_recipients)),
            'subject', freight.fill_rate(coalesce((v_due.setting).custom_subject, 'Notification: Rate {rate.rate_number} has expired'), v_rate),
            'text', freight.fill_rate(coalesce((v_due.setting).custom_content, 'The rate with ID {rate.rate_number} has expired.'), v_rate),
            'email_profile_id', v_due.profile_id), null)
        where n.setting_id = (v_due.setting).id and n.rate_id = (v_due.rate).id and n.expiration_date = (v_due.rate).expiration_date;
        v_sent := v_sent + 1;
    end loop;
    return jsonb_build_object('mails', v_sent);
end $$;
comment on function freight.send_expired_rates_notification(jsonb) is 'Mails about rates that have run out.';
