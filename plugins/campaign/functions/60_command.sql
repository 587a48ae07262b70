-- Commands: rowbeat app campaign <command>. A line for each campaign that changed, then what came of it.

create or replace function campaign.check_budgets(arguments jsonb) returns setof text language sql volatile as $$
    select l from campaign.check_all() c cross join lateral unnest(
        c.lines || format('Budget check completed: %s campaigns checked, %s paused', c.checked, c.paused)) l
$$;
comment on function campaign.check_budgets(jsonb) is 'Command check_budgets.';

create or replace function campaign.reset_lines(p_counter text) returns setof text language sql volatile as $$
    select l from campaign.reset_spends(p_counter, null) r cross join lateral unnest(
        r.lines || format('Successfully reset %s spend for %s campaigns. Reactivated %s campaigns.', p_counter, cardinality(r.moved),
            cardinality(r.activated))) l
$$;
comment on function campaign.reset_lines(text) is 'Resets a counter and says what came of it.';

create or replace function campaign.reset_daily_spends_now(arguments jsonb) returns setof text language sql volatile as $$
    select campaign.reset_lines('daily')
$$;
comment on function campaign.reset_daily_spends_now(jsonb) is 'Command reset_daily_spends.';

create or replace function campaign.reset_monthly_spends_now(arguments jsonb) returns setof text language sql volatile as $$
    select campaign.reset_lines('monthly')
$$;
comment on function campaign.reset_monthly_spends_now(jsonb) is 'Command reset_monthly_spends.';

create or replace function campaign.enforce_dayparting_now(arguments jsonb) returns setof text language sql volatile as $$
    select l from campaign.enforce_all() e cross join lateral unnest(
        e.lines || format('Dayparting enforcement completed: %s enabled, %s disabled', e.enabled, e.disabled)) l
$$;
comment on function campaign.enforce_dayparting_now(jsonb) is 'Command enforce_dayparting.';

-- Promises: a campaign of that type and status with windows for all days and 1 to 5 spends, unless it is there already: then null.
--   Windows of whole days for the active one and 9 to 17 for the others, who are held up by something that comes first: it stands at any hour.
create or replace function campaign.seed_campaign(p_brand campaign.brand, p_name text, p_status text, p_daily numeric, p_monthly numeric) returns text
language plpgsql volatile as $$
declare
    v_now    timestamptz := rowbeat.now_();
    v_today  date := (v_now at time zone coalesce(p_brand.time_zone, campaign.default_zone()))::date;
    v_id     bigint;
begin
    insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date)
    values (p_brand.id, p_name, case p_status when 'draft' then 'draft' else 'active' end, p_daily, p_monthly,
        v_today + case p_status when 'draft' then 7 else -30 end)
    on conflict (brand_id, name) do nothing returning id into v_id;
    if not found then
        return null;
    end if;
    -- All of the spends together stay below half of the daily budget.
    insert into campaign.spend (campaign_id, amount, description, recorded_at)
    select v_id, round((p_daily * (0.02 + 0.08 * random()))::numeric, 2), 'Seed spend', v_now - random() * interval '30 days'
    from generate_series(1, 1 + floor(random() * 4)::integer);
    if p_status = 'paused' then
        insert into campaign.spend (campaign_id, amount, description, recorded_at) values (v_id, p_daily * 1.2, 'Seed spend', v_now);
    end if;
    insert into campaign.dayparting_window (campaign_id, day_of_week, start_time, end_time)
    select v_id, d, case p_status when 'active' then time '00:00' else '09:00' end, case p_status when 'active' then time '23:59' else '17:00' end
    from generate_series(1, 7) d;
    return format('Created campaign: %s (Status: %s)', p_name, (select c.status from campaign.campaign c where c.id = v_id));
end $$;
comment on function campaign.seed_campaign(campaign.brand, text, text, numeric, numeric) is 'Makes a campaign to play with; null: it is there.';

-- Arguments: brands, campaigns_per_brand. What is there already is found, not made again.
create or replace function campaign.seed_data(arguments jsonb) returns setof text language plpgsql volatile as $$
declare
    v_before     text[] := campaign.enter('seed');
    v_name       text;
    v_brand      campaign.brand;
    v_kind       record;
    v_line       text;
    v_brands     integer := 0;
    v_campaigns  integer := 0;
begin
    return next 'Starting to seed database with test data...';
    foreach v_name in array (array['TechCorp', 'FashionForward', 'FoodieDelight', 'SportsMax', 'HomeStyle', 'BeautyGlow', 'AutoDrive', 'TravelWise',
        'HealthPlus', 'EduSmart'])[1 : least(10, coalesce((arguments ->> 'brands')::integer, 5))]
    loop
        insert into campaign.brand (name, description) values (v_name, 'Test brand ' || v_name) on conflict (name) do nothing;
        if found then
            return next 'Created brand: ' || v_name;
        end if;
        select * into v_brand from campaign.brand b where b.name = v_name;
        v_brands := v_brands + 1;
        for v_kind in
            select k.* from (values (1, 'Brand Awareness', 200, 5000, 'active'), (2, 'Lead Generation', 150, 3000, 'paused'), (3, 'Product Launch', 300, 8000, 'draft'),
                (4, 'Seasonal Sale', 100, 2000, 'active'), (5, 'Retargeting', 75, 1500, 'paused')) k (n, name, daily, monthly, status)
            where k.n <= coalesce((arguments ->> 'campaigns_per_brand')::integer, 3) order by k.n
        loop
            v_line := campaign.seed_campaign(v_brand, format('%s - %s', v_kind.name, v_name), v_kind.status, v_kind.daily, v_kind.monthly);
            if v_line is not null then
                return next v_line;
            end if;
            v_campaigns := v_campaigns + 1;
        end loop;
    end loop;
    perform campaign.leave(v_before);
    return query values ('Successfully seeded database with:'), (format('- %s brands', v_brands)), (format('- %s campaigns', v_campaigns)),
        ('- Dayparting schedules for all campaigns'), ('- Spend logs for all campaigns');
end $$;
comment on function campaign.seed_data(jsonb) is 'Command seed_data.';
