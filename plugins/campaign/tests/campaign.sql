-- A campaign stops with the spend that crosses its budget, and runs again when that is raised; a bar's colour is that of its number.
do $$
declare
    v_brand     bigint;
    v_campaign  bigint;
begin
    insert into campaign.brand (name) values ('plugin test') returning id into v_brand;
    insert into campaign.campaign (brand_id, name, status, daily_budget, monthly_budget, start_date)
    values (v_brand, 'plugin test', 'active', 100, 1000, '2020-01-01') returning id into v_campaign;
    assert campaign.add_campaign_spend(v_campaign, 100) ->> 'status' = 'success', 'equal is within';
    assert campaign.decide(v_campaign) = 'active', 'equal is within';
    perform campaign.add_campaign_spend(v_campaign, 0.01);
    assert (select c.pause_reason from campaign.campaign c where c.id = v_campaign) = 'budget', 'a cent more is not';
    update campaign.campaign set daily_budget = 200 where id = v_campaign;
    assert (select c.status from campaign.campaign c where c.id = v_campaign) = 'active', 'a raised budget counts at once';
    assert (select (b.percent, b.colour) = (80.1, 'orange') from campaign.budget_bar(80.05, 100) b), 'the number shown has the colour';
end $$;
