-- Forms: what operators write by hand, and what they do with selected campaigns. A refused form comes back as it was filled in, and says why.

-- The words for what the database refused.
create or replace function campaign.refusal(p_state text, p_message text, p_constraint text) returns text language sql immutable as $$
    select case when p_state = '23505' then format('That is there already (%s).', replace(p_constraint, '_', ' '))
        when p_state in ('23514', '23503') then format('This rule is not kept: %s.', replace(p_constraint, '_', ' ')) else p_message end
$$;
comment on function campaign.refusal(text, text, text) is 'Why a form was refused, in words.';

-- A name without the spaces around it. SQLSTATEs: RP400 (nothing is left).
create or replace function campaign.read_name(p_input jsonb) returns text language plpgsql immutable as $$
declare
    v_name  text := regexp_replace(p_input ->> 'name', '^\s+|\s+$', '', 'g');
begin
    if coalesce(v_name, '') = '' then
        raise exception using errcode = 'RP400', message = 'A name is needed.';
    end if;
    return v_name;
end $$;
comment on function campaign.read_name(jsonb) is 'The name in a form.';

-- SQLSTATEs: RP400 (no amount that can be kept as it is).
create or replace function campaign.read_budget(p_input jsonb, p_field text) returns numeric language plpgsql immutable as $$
declare
    v_budget  numeric := p_input ->> p_field;
begin
    if v_budget between 0.01 and 99999999.99 and v_budget = round(v_budget, 2) then
        return v_budget;
    end if;
    raise exception using errcode = 'RP400',
        message = format('The %s must be from 0.01 to 99999999.99 with at most two decimals.', replace(p_field, '_', ' '));
end $$;
comment on function campaign.read_budget(jsonb, text) is 'A budget in a form.';

create or replace function campaign.answer_brand_form(request jsonb, p_values jsonb, p_error text default null) returns jsonb language sql stable as $$
    select campaign.answer_page(request, case when request #>> '{input,id}' is null then 'New brand' else 'Brand ' || coalesce(p_values ->> 'name', '') end,
            jsonb_build_object('error', p_error, 'forms', jsonb_build_array(jsonb_build_object('method', 'post', 'button', 'Save', 'windows', null, 'fields', jsonb_build_array(
                campaign.field('name', 'Name', 'text', p_values, p_required => true), campaign.field('description', 'Description', 'textarea', p_values),
                campaign.field('is_active', 'Active', 'checkbox', p_values),
                campaign.field('time_zone', 'Time zone (empty: ' || campaign.default_zone() || ')', 'text', p_values))))))
        || case when p_error is null then '{}' else '{"status": 400}'::jsonb end
$$;
comment on function campaign.answer_brand_form(jsonb, jsonb, text) is 'Answers with the form of a brand.';

-- SQLSTATEs: RP404.
create or replace function campaign.get_brand_form(request jsonb) returns jsonb language plpgsql stable as $$
declare
    v_values  jsonb := '{"is_active": true}';
begin
    if request #>> '{input,id}' is not null then
        v_values := (select to_jsonb(b) from campaign.brand b where b.id = (request #>> '{input,id}')::bigint);
        if v_values is null then
            raise exception using errcode = 'RP404', message = format('Brand with ID %s not found', request #>> '{input,id}');
        end if;
    end if;
    return campaign.answer_brand_form(request, v_values);
end $$;
comment on function campaign.get_brand_form(jsonb) is 'GET /campaign/brands/new, /campaign/brands/{id}/edit';

-- SQLSTATEs: RP404.
create or replace function campaign.post_brand(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_input       jsonb := request -> 'input';
    v_id          bigint := (v_input ->> 'id')::bigint;
    v_name        text;
    v_message     text;
    v_constraint  text;
begin
    v_name := campaign.read_name(v_input);
    if v_id is null then
        insert into campaign.brand (name, description, is_active, time_zone)
        values (v_name, v_input ->> 'description', (v_input ->> 'is_active')::boolean, nullif(trim(v_input ->> 'time_zone'), ''));
    else
        update campaign.brand b set name = v_name, description = v_input ->> 'description',
            is_active = (v_input ->> 'is_active')::boolean, time_zone = nullif(trim(v_input ->> 'time_zone'), '')
        where b.id = v_id;
        if not found then
            raise exception using errcode = 'RP404', message = format('Brand with ID %s not found', v_id);
        end if;
    end if;
    return campaign.answer_redirect('/campaign/brands/', format('Brand %s was saved.', v_name));
exception when sqlstate 'RP400' or unique_violation or check_violation or data_exception then
    get stacked diagnostics v_message = message_text, v_constraint = constraint_name;
    return campaign.answer_brand_form(request, v_input, campaign.refusal(sqlstate, v_message, v_constraint));
end $$;
comment on function campaign.post_brand(jsonb) is 'POST /campaign/brands/new, /campaign/brands/{id}/edit';

-- The lines of the windows of a form: {"key", "day", "start", "end", "active", "remove"}, by the form's own names or from the table.
create or replace function campaign.form_windows(p_input jsonb) returns jsonb language sql immutable as $$
    select coalesce(jsonb_agg(jsonb_build_object('key', k.key, 'day', f.form ->> ('window_day_' || k.key), 'start', coalesce(trim(f.form ->> ('window_start_' || k.key)), ''),
            'end', coalesce(trim(f.form ->> ('window_end_' || k.key)), ''), 'active', coalesce(f.form ->> ('window_active_' || k.key), 'false'),
            'remove', coalesce(f.form ->> ('window_remove_' || k.key), 'false')) order by k.key ~ 'new', length(k.key), k.key), '[]')
    from (select case jsonb_typeof(p_input -> 'window_*') when 'object' then p_input -> 'window_*' else '{}' end as form) f
    cross join lateral (select substr(j, length('window_day_') + 1) as key from jsonb_object_keys(f.form) j where starts_with(j, 'window_day_')) k
    where k.key ~ '^([0-9]{1,18}|new[0-9])$'
$$;
comment on function campaign.form_windows(jsonb) is 'The windows of a form that was sent.';

create or replace function campaign.stored_windows(p_campaign_id bigint) returns jsonb language sql stable as $$
    select coalesce((select jsonb_agg(jsonb_build_object('key', w.id::text, 'day', w.day_of_week::text, 'start', w.start_time::text, 'end', w.end_time::text,
            'active', w.is_active::text, 'remove', 'false') order by w.day_of_week, w.start_time) from campaign.dayparting_window w where w.campaign_id = p_campaign_id), '[]')
        || (select jsonb_agg(jsonb_build_object('key', 'new' || n, 'day', '1', 'start', '', 'end', '', 'active', 'true', 'remove', 'false')) from generate_series(1, 3) n)
$$;
comment on function campaign.stored_windows(bigint) is 'The windows of a campaign for its form, and empty lines.';

create or replace function campaign.answer_campaign_form(request jsonb, p_values jsonb, p_windows jsonb, p_error text default null) returns jsonb language sql stable as $$
    select campaign.answer_page(request, case when request #>> '{input,id}' is null then 'New campaign' else 'Campaign ' || coalesce(p_values ->> 'name', '') end,
            jsonb_build_object('error', p_error, 'forms', jsonb_build_array(jsonb_build_object('method', 'post', 'button', 'Save', 'windows', p_windows,
                'days', campaign.days(), 'fields', jsonb_build_array(
                campaign.field('brand_id', 'Brand', 'select', p_values, campaign.brands()), campaign.field('name', 'Name', 'text', p_values, p_required => true),
                campaign.field('daily_budget', 'Daily budget', 'number', p_values, p_required => true),
                campaign.field('monthly_budget', 'Monthly budget', 'number', p_values, p_required => true),
                campaign.field('start_date', 'Start', 'date', p_values, p_required => true), campaign.field('end_date', 'End', 'date', p_values),
                campaign.field('time_zone', 'Time zone (empty: the brand''s)', 'text', p_values)))),
            'tables', coalesce((select jsonb_build_array(campaign.table_of(null, null, jsonb_build_array(
                jsonb_build_array(campaign.cell('Status'), campaign.cell(campaign.status_text(c.status, c.pause_reason))),
                jsonb_build_array(campaign.cell('Daily spend'), campaign.bar_cell(c.daily_spend, c.daily_budget)),
                jsonb_build_array(campaign.cell('Monthly spend'), campaign.bar_cell(c.monthly_spend, c.monthly_budget)))))
                from campaign.campaign c where c.id = (request #>> '{input,id}')::bigint), '[]')))
        || case when p_error is null then '{}' else '{"status": 400}'::jsonb end
$$;
comment on function campaign.answer_campaign_form(jsonb, jsonb, jsonb, text) is 'Answers with the form of a campaign.';

-- SQLSTATEs: RP404.
create or replace function campaign.get_campaign_form(request jsonb) returns jsonb language plpgsql stable as $$
declare
    v_id      bigint := (request #>> '{input,id}')::bigint;
    v_values  jsonb := jsonb_build_object('start_date', (rowbeat.now_() at time zone campaign.default_zone())::date);
begin
    if v_id is not null then
        v_values := (select to_jsonb(c) from campaign.campaign c where c.id = v_id);
        if v_values is null then
            raise exception using errcode = 'RP404', message = format('Campaign with ID %s not found', v_id);
        end if;
    end if;
    return campaign.answer_campaign_form(request, v_values, campaign.stored_windows(v_id));
end $$;
comment on function campaign.get_campaign_form(jsonb) is 'GET /campaign/campaigns/new, /campaign/campaigns/{id}/edit';

-- Promises: the windows of the campaign are those of the form; new lines without a time are left out. What changed is taken away and written again,
--   so that windows may exchange their days. SQLSTATEs: RP400 (a window has lost its times).
create or replace function campaign.save_windows(p_campaign_id bigint, p_windows jsonb) returns void language plpgsql volatile as $$
declare
    v_old  campaign.dayparting_window[];
begin
    if exists (select from jsonb_to_recordset(p_windows) w (key text, start text, "end" text, remove boolean)
        where not w.remove and w.key !~ 'new' and w.start = '' and w."end" = '') then
        raise exception using errcode = 'RP400', message = 'A window needs its times; tick Remove to take it away.';
    end if;
    with gone as (
        delete from campaign.dayparting_window d
        using jsonb_to_recordset(p_windows) w (key text, day integer, start text, "end" text, active boolean, remove boolean)
        where d.campaign_id = p_campaign_id and d.id::text = w.key and case when w.remove then true when w.key ~ 'new' then false
            else (d.day_of_week, d.start_time, d.end_time, d.is_active) is distinct from (w.day, w.start::time, w."end"::time, w.active) end
        returning d
    )
    select array_agg(g.d) into v_old from gone g;
    insert into campaign.dayparting_window (id, campaign_id, day_of_week, start_time, end_time, is_active, created_at)
    select coalesce(o.id, nextval(pg_get_serial_sequence('campaign.dayparting_window', 'id'))), p_campaign_id, w.day, w.start::time, w."end"::time, w.active,
        o.created_at
    from jsonb_to_recordset(p_windows) w (key text, day integer, start text, "end" text, active boolean, remove boolean)
    left join unnest(v_old) o on o.id::text = w.key
    where not w.remove and (w.start <> '' or w."end" <> '') and (o.id is not null or w.key ~ 'new')
    order by w.key ~ 'new', length(w.key), w.key;
end $$;
comment on function campaign.save_windows(bigint, jsonb) is 'Writes the windows of a form.';

-- SQLSTATEs: RP404.
create or replace function campaign.post_campaign(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_input       jsonb := request -> 'input';
    v_id          bigint := (v_input ->> 'id')::bigint;
    v_new         campaign.campaign;
    v_message     text;
    v_constraint  text;
begin
    v_new := jsonb_populate_record(null::campaign.campaign, v_input - 'window_*' || jsonb_build_object('name', campaign.read_name(v_input),
        'daily_budget', campaign.read_budget(v_input, 'daily_budget'), 'monthly_budget', campaign.read_budget(v_input, 'monthly_budget')));
    perform set_config('campaign.in_edit', 'on', true);
    v_new.time_zone := nullif(trim(v_new.time_zone), '');
    if v_id is null then
        insert into campaign.campaign (brand_id, name, daily_budget, monthly_budget, start_date, end_date, time_zone)
        values (v_new.brand_id, v_new.name, v_new.daily_budget, v_new.monthly_budget, v_new.start_date, v_new.end_date, v_new.time_zone)
        returning id into v_id;
    else
        update campaign.campaign c set brand_id = v_new.brand_id, name = v_new.name, daily_budget = v_new.daily_budget,
            monthly_budget = v_new.monthly_budget, start_date = v_new.start_date, end_date = v_new.end_date, time_zone = v_new.time_zone
        where c.id = v_id;
        if not found then
            raise exception using errcode = 'RP404', message = format('Campaign with ID %s not found', v_id);
        end if;
    end if;
    perform campaign.save_windows(v_id, campaign.form_windows(v_input));
    perform set_config('campaign.in_edit', '', true);
    perform campaign.decide_all(array[v_id], null, 'edit');
    return campaign.answer_redirect(format('/campaign/campaigns/%s/', v_id), format('Campaign %s was saved.', v_new.name));
exception when sqlstate 'RP400' or unique_violation or check_violation or foreign_key_violation or data_exception then
    get stacked diagnostics v_message = message_text, v_constraint = constraint_name;
    return campaign.answer_campaign_form(request, v_input, campaign.form_windows(v_input), campaign.refusal(sqlstate, v_message, v_constraint));
end $$;
comment on function campaign.post_campaign(jsonb) is 'POST /campaign/campaigns/new, /campaign/campaigns/{id}/edit';

-- What is done with selected campaigns.
create or replace function campaign.post_action(request jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_ids      bigint[] := array(select i::bigint from jsonb_array_elements_text(coalesce(nullif(request #> '{input,ids}', 'null'), '[]')) i);
    v_actor    text := request ->> 'actor';
    v_message  text := 'Nothing is selected.';
begin
    if v_ids <> '{}' then
        v_message := case request #>> '{input,action}'
            when 'pause_campaigns' then campaign.pause_campaigns(v_ids, v_actor)
            when 'activate_campaigns' then campaign.activate_campaigns(v_ids, v_actor)
            when 'reset_daily_spend' then campaign.clear_spend(v_ids, 'daily', v_actor)
            when 'reset_monthly_spend' then campaign.clear_spend(v_ids, 'monthly', v_actor) end;
    end if;
    return campaign.answer_redirect('/campaign/campaigns/', v_message);
end $$;
comment on function campaign.post_action(jsonb) is 'POST /campaign/campaigns/';

create or replace function campaign.post_spend(request jsonb) returns jsonb language sql volatile as $$
    select jsonb_build_object('status', 200, 'kind', 'json', 'body', campaign.run_add_campaign_spend(request -> 'input'))
$$;
comment on function campaign.post_spend(jsonb) is 'POST /api/campaign/spend';
