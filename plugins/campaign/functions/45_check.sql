-- The other regular tasks: the safety net, activation, the report.

-- Promises: all active campaigns are decided. Returns how many there were, how many paused, and a line for each that changed. Those that stay
--   as they are are not locked. The zones' schedules are put right, too.
create or replace function campaign.check_all(out checked bigint, out paused bigint, out lines text[]) language plpgsql volatile as $$
declare
    v_now  timestamptz := rowbeat.now_();
    v_ids  bigint[] := array(select c.id from campaign.campaign c where c.status = 'active');
begin
    checked := cardinality(v_ids);
    select count(*) filter (where d.to_status = 'paused'),
        array_agg(case when d.to_reason = 'budget' then format('Paused campaign %s due to budget limits', d.name)
            when d.to_status = 'paused' then format('Paused campaign %s due to %s', d.name, d.to_reason)
            else 'Completed campaign ' || d.name end order by d.campaign_id)
    into paused, lines
    from campaign.decide_all(array(select v.campaign_id from campaign.verdict(v_ids, v_now) v), null, 'check') d;
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

create or replace function campaign.budget_bar(p_spend numeric, p_budget numeric) returns table (percent numeric, colour text, width numeric)
language sql immutable as $$
    select s.shown, case when s.shown > 100 then 'red' when s.shown > 80 then 'orange' else 'green' end, least(s.shown, 100)
    from (select round(p_spend / nullif(p_budget, 0) * 100, 1) as shown) s
$$;
comment on function campaign.budget_bar(numeric, numeric) is 'How much of a budget is spent, as it is drawn.';
