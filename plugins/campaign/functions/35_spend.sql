-- Money: booked once, counted in the same transaction, never changed.

-- Promises: the local day and month of a spend are those of its own time.
create or replace function campaign.keep_spend() returns trigger language plpgsql as $$
declare
    v_local  timestamp;
begin
    new.created_at := rowbeat.now_();
    new.updated_at := new.created_at;
    new.recorded_at := coalesce(new.recorded_at, new.created_at);
    v_local := (select new.recorded_at at time zone z.zone from campaign.zoned_campaign z where z.id = new.campaign_id);
    new.spend_day := v_local::date;
    new.spend_month := date_trunc('month', v_local)::date;
    return new;
end $$;
comment on function campaign.keep_spend() is 'Fills in the local day and month of a spend.';
create or replace trigger keep_spend before insert on campaign.spend
    for each row execute function campaign.keep_spend();

-- Promises: the spend is in the counters whose period is its own day or month, and the campaign has stopped if that was too much.
--   A spend never makes anything active. Locks: the campaign.
create or replace function campaign.count_spend() returns trigger language plpgsql as $$
begin
    update campaign.campaign c set
        daily_spend = c.daily_spend + case when c.daily_period = new.spend_day then new.amount else 0 end,
        monthly_spend = c.monthly_spend + case when c.monthly_period = new.spend_month then new.amount else 0 end
    where c.id = new.campaign_id and (c.daily_period = new.spend_day or c.monthly_period = new.spend_month);
    if found then
        perform campaign.decide_all(array[new.campaign_id], null, 'spend', p_may_activate => false);
    end if;
    return null;
end $$;
comment on function campaign.count_spend() is 'Counts a spend, and stops its campaign when it was too much.';
create or replace trigger count_spend after insert on campaign.spend
    for each row execute function campaign.count_spend();

create or replace function campaign.count_clear() returns trigger language plpgsql as $$
begin
    update campaign.campaign c set
        daily_spend = c.daily_spend - case when new.counter = 'daily' then new.amount_cleared else 0 end,
        monthly_spend = c.monthly_spend - case when new.counter = 'monthly' then new.amount_cleared else 0 end
    where c.id = new.campaign_id and new.period = case new.counter when 'daily' then c.daily_period else c.monthly_period end;
    return null;
end $$;
comment on function campaign.count_clear() is 'Takes what an operator cleared from the counter.';
create or replace trigger count_clear after insert on campaign.counter_clear
    for each row execute function campaign.count_clear();

-- What is wrong with a spend, or null.
create or replace function campaign.judge_spend(p_amount numeric, p_at timestamptz, p_now timestamptz) returns text language sql immutable as $$
    select case
        when p_amount is null or p_amount = 'NaN' or p_amount < 0.01 or p_amount <> round(p_amount, 2)
            then 'amount must be at least 0.01 with at most two decimals'
        when p_amount > 99999999.99 then 'amount must be at most 99999999.99'
        when p_at > p_now then 'time lies in the future' end
$$;
comment on function campaign.judge_spend(numeric, timestamptz, timestamptz) is 'What is wrong with a spend, or null.';

-- Promises: the spend is booked and counted, and the campaign stopped if that was too much, or nothing is; which of the two is the answer. It
--   never raises. What only met somebody else's locks is tried again. Called by: anybody, its task, its endpoint. Locks: the campaign.
create or replace function campaign.add_campaign_spend(
    p_campaign_id bigint, p_amount numeric, p_description text default 'Spend added via task', p_at timestamptz default rowbeat.now_(),
    p_late boolean default false
) returns jsonb language plpgsql volatile as $$
declare
    v_now      timestamptz;
    v_name     text;
    v_status   text;
    v_problem  text;
begin
    for v_try in 1 .. 4 loop
        begin
            select c.name into v_name from campaign.campaign c where c.id = p_campaign_id for no key update;
            if not found then
                return jsonb_build_object('status', 'error', 'message', format('Campaign with ID %s not found', coalesce(p_campaign_id::text, 'null')));
            end if;
            -- Whoever waited for the lock may be past midnight.
            v_now := rowbeat.now_();
            v_problem := campaign.judge_spend(p_amount, p_at, v_now);
            exit when v_problem is not null;
            if exists (select from campaign.move_on(array[p_campaign_id], v_now)) then
                perform campaign.decide_all(array[p_campaign_id], null, 'reset');
            elsif p_late is not true then
                perform campaign.decide_all(array[p_campaign_id], null, 'spend');
            end if;
            v_status := (select c.status from campaign.campaign c where c.id = p_campaign_id);
            if v_status <> 'active' and p_late is not true then
                v_problem := 'campaign is ' || v_status;
                exit;
            end if;
            insert into campaign.spend (campaign_id, amount, description, recorded_at, late)
            values (p_campaign_id, p_amount, p_description, coalesce(p_at, v_now), coalesce(p_late, false));
            return jsonb_build_object('status', 'success',
                'message', format('Successfully added $%s spend to campaign %s', round(p_amount, 2), v_name));
        exception when others then
            v_problem := sqlerrm;
            exit when sqlstate not in ('40001', '40P01', '55P03');
        end;
    end loop;
    return jsonb_build_object('status', 'error', 'message', format('Error adding spend to campaign %s: %s', p_campaign_id, v_problem));
end $$;
comment on function campaign.add_campaign_spend(bigint, numeric, text, timestamptz, boolean) is 'Books a spend; answers {"status", "message"}.';

-- The same for a payload {"campaign_id", "amount", "description", "at", "late"}; what is no number or time is answered, too.
create or replace function campaign.run_add_campaign_spend(payload jsonb) returns jsonb language plpgsql volatile as $$
declare
    v_id      bigint;
    v_amount  numeric;
begin
    v_id := (payload ->> 'campaign_id')::bigint;
    begin
        v_amount := (payload ->> 'amount')::numeric;
    exception when others then
        null;
    end;
    return campaign.add_campaign_spend(v_id, v_amount,
        case when payload ? 'description' then payload ->> 'description' else 'Spend added via task' end,
        coalesce((payload ->> 'at')::timestamptz, rowbeat.now_()), coalesce((payload ->> 'late')::boolean, false));
exception when others then
    return jsonb_build_object('status', 'error',
        'message', case when v_id is null then format('Campaign with ID %s not found', payload ->> 'campaign_id')
            else format('Error adding spend to campaign %s: %s', v_id, sqlerrm) end);
end $$;
comment on function campaign.run_add_campaign_spend(jsonb) is 'Task campaign.add_campaign_spend.';
