-- The lists and the overview of a campaign.

create or replace function campaign.get_brands(request jsonb) returns jsonb language sql stable as $$
    with input as (
        select i.*, campaign.pattern(request) as pattern, (campaign.page_of(request) - 1) * 50 as skip
        from jsonb_to_record(request -> 'input') i (active boolean, "from" date, until date)
    ), found as (
        select b.id, b.name, b.is_active, s.daily, s.monthly, s.campaigns
        from input i join campaign.brand b on (b.name ilike i.pattern or b.description ilike i.pattern)
            and (i.active is null or b.is_active = i.active)
            and (i."from" is null or (b.created_at at time zone coalesce(b.time_zone, campaign.default_zone()))::date >= i."from")
            and (i.until is null or (b.created_at at time zone coalesce(b.time_zone, campaign.default_zone()))::date <= i.until)
        cross join lateral (
            select coalesce(sum(c.daily_spend), 0.00) as daily, coalesce(sum(c.monthly_spend), 0.00) as monthly, count(*) as campaigns
            from campaign.campaign c where c.brand_id = b.id) s
        order by b.name offset (select skip from input) limit 51
    )
    select campaign.answer_list(request, 'Brands', jsonb_build_array(
            campaign.field('q', 'Search', 'search', request -> 'input'),
            campaign.field('active', 'Active', 'select', request -> 'input', '[{"value": "", "label": "all"}, {"value": "true", "label": "yes"}, {"value": "false", "label": "no"}]'),
            campaign.field('from', 'Made from', 'date', request -> 'input'), campaign.field('until', 'until', 'date', request -> 'input')),
        array['Name', 'Active', 'Daily spend', 'Monthly spend', 'Campaigns'],
        coalesce(jsonb_agg(jsonb_build_object('id', f.id, 'cells', jsonb_build_array(campaign.cell(f.name, format('/campaign/brands/%s/edit', f.id)),
            campaign.cell(case when f.is_active then 'yes' else 'no' end), campaign.cell('$' || f.daily), campaign.cell('$' || f.monthly),
            campaign.cell(f.campaigns::text, '/campaign/campaigns/?brand=' || f.id))) order by f.name), '[]'),
        '{"links": [{"href": "/campaign/brands/new", "text": "New brand"}]}')
    from found f
$$;
comment on function campaign.get_brands(jsonb) is 'GET /campaign/brands/';

create or replace function campaign.get_campaigns(request jsonb) returns jsonb language sql stable as $$
    with input as (
        select i.*, campaign.pattern(request) as pattern, (campaign.page_of(request) - 1) * 50 as skip
        from jsonb_to_record(request -> 'input') i (status text, brand bigint, "from" date, until date)
    ), found as (
        select z.* from input i join campaign.zoned_campaign z on (z.name ilike i.pattern or z.brand_name ilike i.pattern)
            and (coalesce(i.status, '') = '' or z.status = i.status) and (i.brand is null or z.brand_id = i.brand)
            and (i."from" is null or coalesce(z.end_date, 'infinity') >= i."from") and (i.until is null or z.start_date <= i.until)
        order by z.name, z.id offset (select skip from input) limit 51
    )
    select campaign.answer_list(request, 'Campaigns', jsonb_build_array(
            campaign.field('q', 'Search', 'search', request -> 'input'),
            campaign.field('status', 'Status', 'select', request -> 'input', '[{"value": "", "label": "all"}, "draft", "active", "paused", "completed"]'),
            campaign.field('brand', 'Brand', 'select', request -> 'input', '[{"value": "", "label": "all"}]' || campaign.brands()),
            campaign.field('from', 'Runs from', 'date', request -> 'input'), campaign.field('until', 'until', 'date', request -> 'input')),
        array['Name', 'Brand', 'Status', 'Daily budget', 'Monthly budget', 'Start', 'End'],
        coalesce(jsonb_agg(jsonb_build_object('id', f.id, 'cells', jsonb_build_array(campaign.cell(f.name, format('/campaign/campaigns/%s/', f.id)),
            campaign.cell(f.brand_name), campaign.cell(campaign.status_text(f.status, f.pause_reason)), campaign.bar_cell(f.daily_spend, f.daily_budget),
            campaign.bar_cell(f.monthly_spend, f.monthly_budget), campaign.cell(f.start_date::text), campaign.cell(f.end_date::text)))
            order by f.name, f.id), '[]'),
        '{"links": [{"href": "/campaign/campaigns/new", "text": "New campaign"}], "actions": [{"value": "pause_campaigns", "label": "Pause"},
            {"value": "activate_campaigns", "label": "Activate"}, {"value": "reset_daily_spend", "label": "Reset daily spend"},
            {"value": "reset_monthly_spend", "label": "Reset monthly spend"}]}')
    from found f
$$;
comment on function campaign.get_campaigns(jsonb) is 'GET /campaign/campaigns/';

-- Rows of windows, spends and changes of status, as tables show them.
create or replace function campaign.window_cells(p_window campaign.dayparting_window) returns jsonb language sql stable as $$
    select jsonb_build_array(campaign.cell(campaign.days() #>> array[(p_window.day_of_week - 1)::text, 'label']), campaign.cell(p_window.start_time::text),
        campaign.cell(p_window.end_time::text), campaign.cell(case when p_window.is_active then 'yes' else 'no' end))
$$;
comment on function campaign.window_cells(campaign.dayparting_window) is 'A window as tables show it.';

create or replace function campaign.spend_cells(p_spend campaign.spend, p_zone text) returns jsonb language sql stable as $$
    select jsonb_build_array(campaign.cell('$' || p_spend.amount), campaign.cell(campaign.time_text(p_spend.recorded_at, p_zone)),
        campaign.cell(p_spend.description), campaign.cell(case when p_spend.late then 'yes' else 'no' end))
$$;
comment on function campaign.spend_cells(campaign.spend, text) is 'A spend as tables show it.';

create or replace function campaign.get_windows(request jsonb) returns jsonb language sql stable as $$
    with found as (
        select w, z.id, z.name, z.brand_name from campaign.dayparting_window w join campaign.zoned_campaign z on z.id = w.campaign_id
        order by z.brand_name, z.name, z.id, w.day_of_week, w.start_time offset (campaign.page_of(request) - 1) * 50 limit 51
    )
    select campaign.answer_list(request, 'Windows', '[]', array['Campaign', 'Brand', 'Day', 'From', 'To', 'Active'],
        coalesce(jsonb_agg(jsonb_build_object('cells', jsonb_build_array(campaign.cell(f.name, format('/campaign/campaigns/%s/', f.id)),
            campaign.cell(f.brand_name)) || campaign.window_cells(f.w)) order by f.brand_name, f.name, f.id, (f.w).day_of_week, (f.w).start_time), '[]'))
    from found f
$$;
comment on function campaign.get_windows(jsonb) is 'GET /campaign/windows/';

create or replace function campaign.get_spends(request jsonb) returns jsonb language sql stable as $$
    with found as (
        select s, z.id, z.name, z.zone from campaign.spend s join campaign.zoned_campaign z on z.id = s.campaign_id
        order by s.recorded_at desc, s.id desc offset (campaign.page_of(request) - 1) * 50 limit 51
    )
    select campaign.answer_list(request, 'Spend', '[]', array['Campaign', 'Amount', 'Time', 'Description', 'Late'],
        coalesce(jsonb_agg(jsonb_build_object('cells', jsonb_build_array(campaign.cell(f.name, format('/campaign/campaigns/%s/', f.id)))
            || campaign.spend_cells(f.s, f.zone)) order by (f.s).recorded_at desc, (f.s).id desc), '[]'))
    from found f
$$;
comment on function campaign.get_spends(jsonb) is 'GET /campaign/spend/';

create or replace function campaign.table_of(p_title text, p_columns text[], p_rows jsonb) returns jsonb language sql immutable as $$
    select jsonb_build_object('title', p_title, 'actions', null, 'columns', to_jsonb(p_columns), 'rows', coalesce((
        select jsonb_agg(jsonb_build_object('cells', c) order by n) from jsonb_array_elements(p_rows) with ordinality u (c, n)), '[]'))
$$;
comment on function campaign.table_of(text, text[], jsonb) is 'A table of a page.';

-- Its spends and its changes of status, the newest first, are paged together, 50 of each. SQLSTATEs: RP404.
create or replace function campaign.get_campaign(request jsonb) returns jsonb language plpgsql stable as $$
declare
    v_id       bigint := (request #>> '{input,id}')::bigint;
    v_skip     bigint := (campaign.page_of(request) - 1) * 50;
    v_spends   jsonb;
    v_changes  jsonb;
    z          campaign.zoned_campaign;
begin
    select * into z from campaign.zoned_campaign c where c.id = v_id;
    if not found then
        raise exception using errcode = 'RP404', message = format('Campaign with ID %s not found', v_id);
    end if;
    v_spends := (select coalesce(jsonb_agg(campaign.spend_cells(s, z.zone) order by s.recorded_at desc, s.id desc), '[]')
        from (select * from campaign.spend s where s.campaign_id = v_id order by s.recorded_at desc, s.id desc offset v_skip limit 51) s);
    v_changes := (select coalesce(jsonb_agg(jsonb_build_array(
            campaign.cell(campaign.time_text(h.at, z.zone)), campaign.cell(campaign.status_text(h.from_status, h.from_reason)),
            campaign.cell(campaign.status_text(h.to_status, h.to_reason)), campaign.cell(h.cause), campaign.cell(h.actor),
            campaign.cell(h.task_id::text)) order by h.id desc), '[]')
        from (select * from campaign.status_change h where h.campaign_id = v_id order by h.id desc offset v_skip limit 51) h);
    return campaign.answer_page(request, z.name, jsonb_build_object(
        'links', jsonb_build_array(jsonb_build_object('href', format('/campaign/campaigns/%s/edit', v_id), 'text', 'Edit')),
        'tables', jsonb_build_array(
            campaign.table_of(null, null, jsonb_build_array(
            jsonb_build_array(campaign.cell('Brand'), campaign.cell(z.brand_name, format('/campaign/brands/%s/edit', z.brand_id))),
            jsonb_build_array(campaign.cell('Status'), campaign.cell(campaign.status_text(z.status, z.pause_reason))),
            jsonb_build_array(campaign.cell(format('Daily spend on %s', z.daily_period)), campaign.bar_cell(z.daily_spend, z.daily_budget)),
            jsonb_build_array(campaign.cell(format('Monthly spend in %s', to_char(z.monthly_period, 'YYYY-MM'))), campaign.bar_cell(z.monthly_spend, z.monthly_budget)),
            jsonb_build_array(campaign.cell('Start'), campaign.cell(z.start_date::text)), jsonb_build_array(campaign.cell('End'), campaign.cell(z.end_date::text)),
            jsonb_build_array(campaign.cell('Time zone'), campaign.cell(z.zone || case when z.time_zone is null then ' (not its own)' else '' end)),
            jsonb_build_array(campaign.cell('Made'), campaign.cell(campaign.time_text(z.created_at, z.zone))),
            jsonb_build_array(campaign.cell('Changed'), campaign.cell(campaign.time_text(z.updated_at, z.zone))))),
            campaign.table_of('Windows', array['Day', 'From', 'To', 'Active'], (select jsonb_agg(campaign.window_cells(w) order by w.day_of_week, w.start_time)
                from campaign.dayparting_window w where w.campaign_id = v_id)),
            campaign.table_of('Spend', array['Amount', 'Time', 'Description', 'Late'], v_spends - 50),
            campaign.table_of('Status changes', array['Time', 'From', 'To', 'Cause', 'Actor', 'Task'], v_changes - 50)),
        'pages', campaign.pages(request, '[]', greatest(jsonb_array_length(v_spends), jsonb_array_length(v_changes)) > 50)));
end $$;
comment on function campaign.get_campaign(jsonb) is 'GET /campaign/campaigns/{id}/';
