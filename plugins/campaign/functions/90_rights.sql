-- Operators see everything, edit what is theirs to say, and call what is for people. Counters move by the logs, and these by functions.
do $$
begin
    if to_regrole('rowbeat_operator') is null then
        return;
    end if;
    grant select on all tables in schema campaign to rowbeat_operator;
    grant insert, update, delete on campaign.brand, campaign.dayparting_window to rowbeat_operator;
    grant delete on campaign.campaign to rowbeat_operator;
    grant insert (brand_id, name, status, pause_reason, daily_budget, monthly_budget, start_date, end_date, time_zone),
        update (brand_id, name, status, pause_reason, daily_budget, monthly_budget, start_date, end_date, time_zone) on campaign.campaign to rowbeat_operator;
    -- What the view of campaigns with their zones calls, its reader calls.
    grant execute on function campaign.default_zone(), campaign.decide(bigint, timestamptz, text), campaign.is_within_dayparting(bigint, timestamptz),
        campaign.add_campaign_spend(bigint, numeric, text, timestamptz, boolean), campaign.reset_daily_spends(text),
        campaign.reset_monthly_spends(text), campaign.check_campaign_budgets(), campaign.activate_eligible_campaigns(),
        campaign.enforce_dayparting(), campaign.generate_spend_report(bigint), campaign.budget_bar(numeric, numeric),
        campaign.pause_campaigns(bigint[], text), campaign.activate_campaigns(bigint[], text), campaign.clear_spend(bigint[], text, text)
        to rowbeat_operator;
end $$;
