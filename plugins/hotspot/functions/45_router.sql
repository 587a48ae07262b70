-- The router's side, RouterOS by REST: its user manager lists profiles, gets a user, and assigns and activates a profile. What carries a password
-- or a user's name is secret: it is not kept with the task. All of it may be repeated.

-- The profile whose price is the amount. The number that a name begins with is read as a whole: 30 is not 3.
-- SQLSTATEs: RP409 (none, or several).
create or replace function hotspot.match_profile(p_amount numeric, p_profiles text[]) returns text language plpgsql immutable as $$
declare
    v_found  text[] := array(select distinct p from unnest(p_profiles) p where substring(p from '^[0-9]+(?:\.[0-9]+)?')::numeric = p_amount);
begin
    if cardinality(v_found) <> 1 then
        perform hotspot.refuse('RP409', format(case when v_found = '{}' then 'No router profile for %s' else 'Several router profiles for %s' end, trim_scale(p_amount)));
    end if;
    return v_found[1];
end $$;
comment on function hotspot.match_profile(numeric, text[]) is 'The profile whose price is exactly the amount.';

-- The profile of a sale among those of the router: the bundle's own if it has one, else the one of its price. SQLSTATEs: RP409.
create or replace function hotspot.choose_profile(p_sale hotspot.sale, p_profiles text[]) returns text language plpgsql stable as $$
declare
    v_profile  text := (select b.router_profile from hotspot.bundle b where b.code = p_sale.bundle_code);
begin
    if v_profile is null then
        return hotspot.match_profile(p_sale.amount, p_profiles);
    elsif v_profile <> all (p_profiles) then
        perform hotspot.refuse('RP409', format('The router has no profile %s', v_profile));
    end if;
    return v_profile;
end $$;
comment on function hotspot.choose_profile(hotspot.sale, text[]) is 'The router''s profile for a sale.';

-- The names in a list of profiles.
create or replace function hotspot.names(p_response jsonb) returns text[] language sql immutable as $$
    select array(select p ->> 'name' from jsonb_array_elements(case jsonb_typeof(p_response -> 'body') when 'array' then p_response -> 'body' else '[]' end) p
        where p ->> 'name' is not null)
$$;
comment on function hotspot.names(jsonb) is 'The names in what the router listed.';

-- The row of the profile in a list of what is assigned to a user; null: it is not.
create or replace function hotspot.assignment(p_response jsonb, p_profile text) returns jsonb language sql immutable as $$
    select p from jsonb_array_elements(case jsonb_typeof(p_response -> 'body') when 'array' then p_response -> 'body' else '[]' end) p
    where p ->> 'profile' = p_profile limit 1
$$;
comment on function hotspot.assignment(jsonb, text) is 'How a profile is assigned to a user.';

-- The user as read back; null: the router does not show him. The password was part of the question.
create or replace function hotspot.read_back(p_response jsonb) returns jsonb language sql immutable as $$
    select u from jsonb_array_elements(case jsonb_typeof(p_response -> 'body') when 'array' then p_response -> 'body' else '[]' end) u
    where jsonb_array_length(p_response -> 'body') = 1 and u ? 'shared-users' and coalesce(u ->> 'disabled', 'false') <> 'true'
$$;
comment on function hotspot.read_back(jsonb) is 'The user that the router shows.';

-- The router's next step; null: all are done. The responses are lists of profiles until one fits, the user (secret, so without a body), what is
-- assigned to him, the assignment, the list again, the activation, and reads until he shows. A step that has nothing to do is a read. What did not fit
-- is asked again, once an attempt. SQLSTATEs: RP409.
create or replace function hotspot.plan_router(p_sale hotspot.sale, p_responses jsonb[], p_failures integer) returns jsonb language plpgsql volatile as $$
declare
    v_lists     integer := (select count(*) from unnest(p_responses) with ordinality r (response, n) where r.n <= coalesce(
        (select min(f.n) - 1 from unnest(p_responses) with ordinality f (response, n) where f.response -> 'body' = 'null'), cardinality(p_responses)));
    v_more      integer := cardinality(p_responses) - v_lists - 1;
    v_profile   text;
    v_assigned  jsonb;
    v_list      jsonb := jsonb_build_object('method', 'GET', 'path', '/user-manager/user-profile',
        'secret', '["request"]'::jsonb, 'query', jsonb_build_object('user', p_sale.hotspot_username, '.proplist', '.id,profile,state'));
    v_effect    jsonb;
    -- A refusal passes as well: a router that is being set up has no profile yet, or another password.
    v_to        constant jsonb := '{"connection": "router", "retry": [400, 401, 403, 404, 405, 406, 409, 422]}';
begin
    if v_lists = 0 or v_more < 0 and v_lists <= p_failures then
        return v_to || jsonb_build_object('method', 'GET', 'path', '/user-manager/profile', 'query', jsonb_build_object('.proplist', 'name'));
    end if;
    v_profile := hotspot.choose_profile(p_sale, hotspot.names(p_responses[v_lists]));
    v_assigned := hotspot.assignment(p_responses[v_lists + case when v_more >= 3 then 4 else 2 end], v_profile);
    if v_more < 0 then
        update hotspot.delivery d set router_user = p_sale.hotspot_username where d.sale_id = p_sale.id;
        v_effect := jsonb_build_object('method', 'PUT', 'path', '/user-manager/user', 'secret', '["request", "response"]'::jsonb, 'ok', '[400, 409]'::jsonb,
            'body', jsonb_build_object('name', p_sale.hotspot_username, 'password', p_sale.hotspot_password, 'shared-users', '1'));
    elsif v_more = 1 and v_assigned is null then
        v_effect := jsonb_build_object('method', 'PUT', 'path', '/user-manager/user-profile', 'secret', '["request", "response"]'::jsonb,
            'body', jsonb_build_object('user', p_sale.hotspot_username, 'profile', v_profile));
    elsif v_more < 3 then
        v_effect := v_list;
    elsif v_more = 3 and coalesce(v_assigned ->> 'state', '') not like 'running%' then
        if v_assigned is null then
            perform hotspot.refuse('RP409', format('The router did not assign profile %s', v_profile));
        end if;
        v_effect := jsonb_build_object('method', 'POST', 'path', '/user-manager/user-profile/activate-user-profile',
            'body', jsonb_build_object('.id', v_assigned -> '.id'));
    elsif v_more = 3 then
        v_effect := v_list;
    elsif hotspot.read_back(p_responses[cardinality(p_responses)]) is not null and v_more > 4 then
        return null;
    elsif v_more - 4 > p_failures then
        perform hotspot.refuse('RP409', 'The router does not show the user.');
    else
        v_effect := jsonb_build_object('method', 'GET', 'path', '/user-manager/user', 'secret', '["request"]'::jsonb, 'query', jsonb_build_object(
            'name', p_sale.hotspot_username, 'password', p_sale.hotspot_password, '.proplist', '.id,shared-users,disabled'));
    end if;
    return v_to || v_effect;
end $$;
comment on function hotspot.plan_router(hotspot.sale, jsonb[], integer) is 'The next step of a delivery by the router.';

-- Promises: a user that the router may have for the sale is taken away, by a task. Called by: refund, and a delivery by the pool in the router's place.
create or replace function hotspot.revoke(p_sale_id uuid) returns void language sql volatile as $$
    select rowbeat.enqueue('hotspot.revoke_router_user', jsonb_build_object('sale', d.sale_id), p_unique_key => d.sale_id::text)
    from hotspot.delivery d where d.sale_id = p_sale_id and d.router_user is not null
$$;
comment on function hotspot.revoke(uuid) is 'Takes away the router''s user of a sale.';

create or replace function hotspot.plan_revoke(task jsonb, responses jsonb[]) returns jsonb language sql stable as $$
    select case
        when cardinality(responses) = 0 then jsonb_build_object('connection', 'router', 'method', 'GET', 'path', '/user-manager/user', 'secret', '["request"]'::jsonb,
            'query', jsonb_build_object('name', d.router_user, '.proplist', '.id'))
        when cardinality(responses) <= jsonb_array_length(u.users) then jsonb_build_object('connection', 'router', 'method', 'DELETE',
            'path', '/user-manager/user/' || (u.users -> cardinality(responses) - 1 ->> '.id'), 'ok', '[404]'::jsonb) end
    from hotspot.delivery d
    cross join lateral (select case when jsonb_typeof(responses[1] -> 'body') = 'array' then responses[1] -> 'body' else '[]' end as users) u
    where d.sale_id = hotspot.sale_of(task) and d.router_user is not null
$$;
comment on function hotspot.plan_revoke(jsonb, jsonb[]) is 'Plans the removal of a user.';

create or replace function hotspot.settle_revoke(task jsonb, outcome jsonb, responses jsonb[]) returns jsonb language sql volatile as $$
    with gone as (update hotspot.delivery d set router_user = null
        where d.sale_id = hotspot.sale_of(task) and outcome ->> 'outcome' = 'done' returning 1)
    select jsonb_build_object('removed', count(*)) from gone
$$;
comment on function hotspot.settle_revoke(jsonb, jsonb, jsonb[]) is 'Records the removal of a user.';
