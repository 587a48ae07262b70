-- What operators do with campaigns they have chosen. Each is one transaction; unknown ids are passed over.

-- Locks: the campaigns, in order of id.
create or replace function campaign.pause_campaigns(p_ids bigint[], p_actor text) returns text language plpgsql volatile as $$
declare
    v_before  text[] := campaign.enter('operator', p_actor);
    v_count   bigint;
begin
    perform from campaign.campaign c where c.id = any (p_ids) order by c.id for no key update;
    with old as (
        select c.id, c.status from campaign.campaign c
        where c.id = any (p_ids) and (c.status = 'active' or c.status = 'paused' and c.pause_reason <> 'manual')
    ), paused as (
        update campaign.campaign c set status = 'paused', pause_reason = 'manual' from old o where c.id = o.id returning o.status
    )
    select count(*) filter (where p.status = 'active') into v_count from paused p;
    perform campaign.leave(v_before);
    return format('Successfully paused %s campaigns.', v_count);
end $$;
comment on function campaign.pause_campaigns(bigint[], text) is 'Pauses campaigns until a person activates them; says how many were active.';

-- Promises: a manual pause is ended and the campaign decided; a completed one runs again if its end is no longer past; a draft that may not run stays
--   one. Locks: the campaigns, in order of id.
create or replace function campaign.activate_campaigns(p_ids bigint[], p_actor text) returns text language plpgsql volatile as $$
declare
    v_before  text[] := campaign.enter('operator', p_actor);
    v_count   bigint;
begin
    perform from campaign.campaign c where c.id = any (p_ids) order by c.id for no key update;
    with wanted as (
        select s.campaign_id, case when s.obstacle is null then 'active' when s.obstacle = 'ended' then 'completed' else 'paused' end as status,
            nullif(s.obstacle, 'ended') as reason
        from campaign.standing(p_ids, rowbeat.now_()) s
        where s.status = 'paused' or s.status = 'draft' and s.obstacle is null or s.status = 'completed' and s.obstacle is distinct from 'ended'
    ), changed as (
        update campaign.campaign c set status = w.status, pause_reason = w.reason
        from wanted w where c.id = w.campaign_id and (c.status, c.pause_reason) is distinct from (w.status, w.reason)
        returning w.status
    )
    select count(*) filter (where c.status = 'active') into v_count from changed c;
    perform campaign.leave(v_before);
    -- Those of completed ones were not looked at so far.
    perform campaign.enqueue_boundaries(p_ids);
    return format('Successfully activated %s campaigns.', v_count);
end $$;
comment on function campaign.activate_campaigns(bigint[], text) is 'Ends manual pauses; says how many became active.';

-- Promises: the counter is 0 within its current period, the clear is in the log, and the campaigns are decided.
-- Locks: the campaigns, in order of id. SQLSTATEs: RP400 (no such counter).
create or replace function campaign.clear_spend(p_ids bigint[], p_counter text, p_actor text) returns text language plpgsql volatile as $$
declare
    v_now     timestamptz;
    v_before  text[];
    v_count   bigint;
begin
    if p_counter is null or p_counter not in ('daily', 'monthly') then
        raise exception using errcode = 'RP400', message = format('There is no counter %s: daily, monthly.', coalesce(p_counter, 'null'));
    end if;
    perform from campaign.campaign c where c.id = any (p_ids) order by c.id for no key update;
    v_now := rowbeat.now_();
    v_before := campaign.enter('operator', p_actor);
    perform campaign.move_on(p_ids, v_now);
    insert into campaign.counter_clear (campaign_id, counter, period, amount_cleared, actor, at)
    select c.id, p_counter, case p_counter when 'daily' then c.daily_period else c.monthly_period end,
        case p_counter when 'daily' then c.daily_spend else c.monthly_spend end, p_actor, v_now
    from campaign.campaign c where c.id = any (p_ids) order by c.id;
    get diagnostics v_count = row_count;
    perform campaign.decide_all(p_ids, null, 'operator');
    perform campaign.leave(v_before);
    return format('Successfully reset %s spend for %s campaigns.', p_counter, v_count);
end $$;
comment on function campaign.clear_spend(bigint[], text, text) is 'Sets a counter to zero within its period.';
