-- Endpoints and commands of plugins: who may, and the call. Dynamic SQL: the resolved function of an endpoint or command.

-- Promises: every daemon reads the endpoints anew after a commit that changed them.
create or replace function rowbeat.announce_endpoint() returns trigger
language plpgsql set search_path = '' as $$
begin
    perform rowbeat.announce('endpoint');
    return null;
end $$;
comment on function rowbeat.announce_endpoint() is 'Tells the daemons that endpoints changed.';

create or replace trigger announce_endpoint after insert or update or delete on rowbeat.plugin_endpoint
    for each statement execute function rowbeat.announce_endpoint();

-- Promises: who asks (null: nobody known), and with which HTTP status he is refused (null: he may). p_auth is the endpoint's: operator, token,
--   none; or any: every valid token will do. p_open: the daemon listens on the loopback only and the request came straight to it;
--   then everybody is the operator while there has never been a token. Called by: serve_endpoint, the daemon's own paths.
create or replace function rowbeat.authorise(p_auth text, p_plugin text, p_endpoint text, p_digest bytea, p_open boolean,
    out actor text, out refusal integer)
language plpgsql stable set search_path = '' as $$
declare
    v_token  rowbeat.token;
begin
    if p_digest is not null then
        select * into v_token from rowbeat.token t
        where t.digest = p_digest and t.revoked_at is null and (t.expires_at is null or t.expires_at > rowbeat.now_());
        actor := v_token.name;
    elsif p_open and not exists (select from rowbeat.token) then
        actor := 'operator';
        return;
    end if;
    refusal := case
        when p_auth = 'none' then null
        when actor is null then 401
        when v_token.operator or p_auth = 'any' then null
        when p_auth = 'token' and (p_plugin = any (v_token.plugins) or p_endpoint = any (v_token.endpoints)) then null
        else 403
    end;
end $$;
comment on function rowbeat.authorise(text, text, text, bytea, boolean) is 'Who asks over HTTP, and the status with which he is refused.';

-- Promises: the text of a plugin's template and of those that it extends, includes or imports, by their names, which stand in it as plain
--   texts; null when there is no such template.
create or replace function rowbeat.template_sources(p_plugin text, p_name text) returns jsonb
language sql stable set search_path = '' as $$
    with recursive source (path, content) as (
        select f.path, convert_from(f.content, 'UTF8') from rowbeat.plugin_file f where f.plugin = p_plugin and f.path = 'templates/' || p_name
        union
        select f.path, convert_from(f.content, 'UTF8')
        from source s
        cross join lateral regexp_matches(s.content, '\{%[-+]?\s*(?:extends|include|import|from)\s+["'']([^"'']+)["'']', 'g') named (names)
        join rowbeat.plugin_file f on f.plugin = p_plugin and f.path = 'templates/' || named.names[1]
    )
    select jsonb_object_agg(substr(s.path, 11), s.content) from source s
$$;
comment on function rowbeat.template_sources(text, text) is 'A template of a plugin and those that it names.';

-- Promises: the answer of an endpoint's function, with the texts of its templates; or the status with which the request is refused before
--   anything was called (401, 403; 404: the endpoint is gone). In an unconfirmed copy of the database nothing is called. The function gets
--   p_request with the actor, who is also the actor of captured changes.
-- Called by: the daemon, alone in a transaction that is read only for GET. SQLSTATEs: RB002, RB005, RB007, and whatever the function raises.
create or replace function rowbeat.serve_endpoint(p_method text, p_shape text, p_request jsonb, p_files bytea[], p_digest bytea, p_open boolean)
returns table (answer jsonb, templates jsonb, refusal integer)
language plpgsql volatile set search_path = '' as $$
declare
    v_endpoint  rowbeat.plugin_endpoint;
    v_actor     text;
    v_function  regprocedure;
begin
    perform rowbeat.refuse_copy();
    select * into v_endpoint from rowbeat.plugin_endpoint e where e.method = p_method and e.shape = p_shape;
    if found then
        select a.actor, a.refusal into v_actor, refusal
        from rowbeat.authorise(v_endpoint.auth, v_endpoint.plugin, v_endpoint.method || ' ' || v_endpoint.path, p_digest, p_open) a;
    else
        refusal := 404;
    end if;
    if refusal is null then
        perform set_config('rowbeat.actor', coalesce(v_actor, ''), true);
        p_request := p_request || jsonb_build_object('actor', v_actor);
        if v_endpoint.input @> '[{"type": "file"}]' then
            v_function := rowbeat.resolve_function(v_endpoint.function, '(jsonb,bytea[])');
            execute format('select %s($1, $2)', v_function::regproc) into answer using p_request, p_files;
        else
            v_function := rowbeat.resolve_function(v_endpoint.function, '(jsonb)');
            execute format('select %s($1)', v_function::regproc) into answer using p_request;
        end if;
        -- What the function did to the search path must not decide what comes next.
        perform pg_catalog.set_config('search_path', '', false);
        templates := rowbeat.template_sources(v_endpoint.plugin, coalesce(answer ->> 'template', v_endpoint.template));
    end if;
    return next;
end $$;
comment on function rowbeat.serve_endpoint(text, text, jsonb, bytea[], bytea, boolean) is 'Answers an HTTP request to a plugin''s endpoint.';

-- Promises: the lines that a plugin's command prints. Called by: rowbeat app. SQLSTATEs: RB002, RB005, and whatever the function raises.
create or replace function rowbeat.run_command(p_plugin text, p_command text, p_arguments jsonb) returns setof text
language plpgsql volatile set search_path = '' as $$
declare
    v_function  regprocedure;
begin
    select rowbeat.resolve_function(c.function, '(jsonb)') into v_function
    from rowbeat.plugin_command c where c.plugin = p_plugin and c.name = p_command;
    return query execute format('select * from %s($1)', v_function::regproc) using p_arguments;
end $$;
comment on function rowbeat.run_command(text, text, jsonb) is 'Runs a plugin''s command; returns the lines to print.';
