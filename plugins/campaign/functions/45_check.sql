-- The other regular tasks: the safety net, activation, the report.

-- Promises: if the setting names another zone than last time, the campaigns that live by it count the day and month that it is there. Returns
--   those campaigns: they are to be decided. Locks: the row of what was followed; those campaigns, in order of id.
create or replace function campaign.follow_setting() returns bigint[] language plpgsql volatile as $$
declare
    v_setting  text := campaign.zone_setting();
    v_zone     text := case when campaign.knows_zone(v_setting) then v_setting else 'UTC' end;
    v_before   text := (select f.zone from campaign.followed_zone f for update);
    v_ids      bigint[];
begin
    if v_zone <> v_setting then
        raise warning 'The setting campaign.zone is %, which is no time zone that the server knows: UTC is used.', v_setting;
    end if;
    update campaign.followed_zone f set setting = v_setting, zone = v_zone where (f.setting, f.zone) <> (v_setting, v_zone);
    if v_zone = v_before then
        return '{}';
    end if;
    v_ids := array(select c.id from campaign.campaign c join campaign.brand b on b.id = c.brand_id
        where c.time_zone is null and b.time_zone is null order by c.id for no key update of c);
    perform campaign.move_on(v_ids, rowbeat.now_());
    perform campaign.enqueue_boundaries(v_ids);
    return v_ids;
end $$;
comment on function campaign.follow_setting() is 'Moves campaigns to the day and month of the zone that is set.';

-- Promises: all active campaigns are decided. Returns how many there were, how many paused, and a line for each that changed. Those that stay
--   as they are are not locked. An edited setting is followed, and the zones' schedules are put right, too.
create or replace function campaign.check_all(out checked bigint, out paused bigint, out lines text[]) language plpgsql volatile as $$
declare
    v_moved  bigint[] := campaign.follow_setting();
    v_now    timestamptz := rowbeat.now_();
    v_ids    bigint[] := array(select c.id from campaign.campaign c where c.status = 'active' or c.id = any (v_moved));
begin
    checked := (select count(*) from campaign.campaign c where c.status = 'active');
    select count(*) filter (where d.to_status = 'paused'),
        array_agg(case d.to_status when 'active' then 'Reactivated campaign: ' || d.name when 'completed' then 'Completed campaign ' || d.name
            else campaign.pause_line(d.name, d.to_reason) end order by d.campaign_id)
    into paused, lines
    from campaign.decide_all(array(select v.campaign_id from campaign.verdict(v_ids, v_now) v), null, 'check') d where d.to_status <> d.from_status;
    perform campaign.follow_all_zones();
end $$;
comment on function campaign.check_all() is 'Decides all active campaigns.';

create or replace function campaign.check_campaign_budgets() returns jsonb language sql volatile as $$
    select jsonb_build_object('checked_count', c.checked, 'paused_count', c.paused) from campaign.check_all() c
$$;
comment on function campaign.check_campaign_budgets() is 'Decides all active campaigns.';

create or replace function campaign.run_check_campaign_budgets(payload jsonb) returns jsonb language sql volatile as $$
    select campaign.check_campaign_budgets()
$$;
comment on function campaign.run_check_campaign_budgets(jsonb) is 'Task campaign.check_campaign_budgets.';

-- Promises: drafts that nothing stands in the way of are active. Locks: those, in order of id.
create or replace function campaign.activate_eligible_campaigns() returns jsonb language plpgsql volatile as $$
declare
    v_now     timestamptz := rowbeat.now_();
    v_ids     bigint[];
    v_before  text[];
    v_count   bigint;
begin
    v_ids := array(select s.campaign_id from campaign.standing(array(select c.id from campaign.campaign c where c.status = 'draft'), v_now) s
        where s.obstacle is null);
    perform from campaign.campaign c where c.id = any (v_ids) order by c.id for no key update;
    v_before := campaign.enter('activation');
    update campaign.campaign c set status = 'active', pause_reason = null
    from campaign.standing(v_ids, rowbeat.now_()) s
    where c.id = s.campaign_id and s.status = 'draft' and s.obstacle is null;
    get diagnostics v_count = row_count;
    perform campaign.leave(v_before);
    return jsonb_build_object('activated_count', v_count);
end $$;
comment on function campaign.activate_eligible_campaigns() is 'Activates drafts whose time has come.';

create or replace function campaign.run_activate_eligible_campaigns(payload jsonb) returns jsonb language sql volatile as $$
    select campaign.activate_eligible_campaigns()
$$;
comment on function campaign.run_activate_eligible_campaigns(jsonb) is 'Task campaign.activate_eligible_campaigns.';

create or replace function campaign.generate_spend_report(p_brand_id bigint default null) returns jsonb language sql volatile as $$
    select jsonb_build_object('total_campaigns', count(*), 'active_campaigns', count(*) filter (where c.status = 'active'),
        'paused_campaigns', count(*) filter (where c.status = 'paused'), 'total_daily_spend', coalesce(sum(c.daily_spend), 0.00),
        'total_monthly_spend', coalesce(sum(c.monthly_spend), 0.00), 'generated_at', rowbeat.now_())
    from campaign.campaign c where p_brand_id is null or c.brand_id = p_brand_id
$$;
comment on function campaign.generate_spend_report(bigint) is 'Sums over the campaigns of a brand, or of all.';

create or replace function campaign.run_generate_spend_report(payload jsonb) returns jsonb language sql volatile as $$
    select campaign.generate_spend_report((payload ->> 'brand_id')::bigint)
$$;
comment on function campaign.run_generate_spend_report(jsonb) is 'Task campaign.generate_spend_report: {"brand_id"}.';

-- Of no budget nothing is spent.
create or replace function campaign.budget_bar(p_spend numeric, p_budget numeric) returns table (percent numeric, colour text, width numeric)
language sql immutable as $$
    select s.shown, case when s.shown > 100 then 'red' when s.shown > 80 then 'orange' else 'green' end, least(s.shown, 100)
    from (select round(coalesce(p_spend / nullif(p_budget, 0), 0) * 100, 1) as shown) s
$$;
comment on function campaign.budget_bar(numeric, numeric) is 'How much of a budget is spent, as it is drawn.';
