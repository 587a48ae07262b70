-- Consumers of the change log besides the router. Each has a position of its own and holds the log back, up to a limit.
--
-- Who may: consume and rebase_consumer run as rowbeat's owner, so that a consumer needs no right on the log; they are for members of the
-- consumer's role and show the tables it was made for, and nothing else.

-- Promises: the consumer exists as asked, from now on. Safe to repeat: a known one keeps its position. Called by: operators.
-- SQLSTATEs: 22023 (a name of the daemon's own), 42704 (no such role).
create or replace function rowbeat.create_consumer(p_name text, p_tables regclass[], p_role name default current_user) returns text
language plpgsql volatile set search_path = '' as $$
begin
    if p_name in ('router', 'backup') or p_tables is null or p_tables = '{}' then
        raise exception 'a consumer needs a name of its own and tables' using errcode = '22023';
    end if;
    insert into rowbeat.change_consumer (name, tables, role, position) values (p_name, p_tables, quote_ident(p_role)::regrole::text, pg_current_snapshot())
    on conflict (name) do update set tables = excluded.tables, role = excluded.role;
    return p_name;
end $$;
comment on function rowbeat.create_consumer(text, regclass[], name) is 'Creates a consumer of the changes of some tables, for the members of a role.';

-- Promises: the consumer is gone and holds nothing back. False: there was none. Called by: operators.
create or replace function rowbeat.drop_consumer(p_name text) returns boolean
language plpgsql volatile set search_path = '' as $$
begin
    delete from rowbeat.change_consumer c where c.name = p_name and c.name not in ('router', 'backup');
    return found;
end $$;
comment on function rowbeat.drop_consumer(text) is 'Removes a consumer; false when there is none of that name.';

-- Promises: returns for a session that may use the consumer, in whose role it is (set role counts). SQLSTATEs: 42501.
create or replace function rowbeat.refuse_stranger(p_consumer text) returns void
language plpgsql stable set search_path = '' as $$
declare
    v_session  name := coalesce(nullif(current_setting('role'), 'none'), session_user);
begin
    if not exists (select from rowbeat.change_consumer c
        where c.name = p_consumer and c.name <> 'backup' and pg_has_role(v_session, coalesce(c.role, quote_ident(current_user))::regrole, 'MEMBER')) then
        raise exception 'there is no consumer "%" for %', p_consumer, v_session using errcode = 'insufficient_privilege',
            hint = 'rowbeat.create_consumer makes one, for the members of a role.';
    end if;
end $$;
comment on function rowbeat.refuse_stranger(text) is 'Refuses who may not use a consumer.';

-- Promises: the next changes of the consumer's tables, at most so many, in order of writing within what became visible together. They are
--   read with the caller's transaction: when it is rolled back they come again. No row: nothing now.
-- Called by: consumers. Locks: the consumer's row, waiting for another session that reads with it.
-- SQLSTATEs: RB008 (it lost its place), 42501.
create or replace function rowbeat.consume(p_consumer text, p_limit integer default 1000)
returns table (change bigint, transaction xid8, "table" text, operation text, key jsonb, old jsonb, new jsonb, login_role text, actor text,
    origin text, at timestamptz, error text)
language plpgsql volatile security definer set search_path = '' as $$
declare
    v_piece  record;
    v_lost   timestamptz;
begin
    perform rowbeat.refuse_stranger(p_consumer);
    select * into v_piece from rowbeat.read_changes(p_consumer, p_limit, true);
    select c.lost_at into v_lost from rowbeat.change_consumer c where c.name = p_consumer;
    if v_lost is not null then
        raise exception 'consumer "%" lost its place: the log was emptied at % before it had read it', p_consumer, v_lost using errcode = 'RB008',
            hint = format('Copy the tables anew, after: select rowbeat.rebase_consumer(%L);', p_consumer);
    end if;
    return query
    select c.seq, c.xid, c.table_name::text, c.operation, rowbeat.live_key(c), c.old, c.new, c.login_role, c.actor, c.origin, c.at, c.error
    from rowbeat.change c where c.seq = any (v_piece.seqs) and c.slot = any (v_piece.slots) order by c.seq;
end $$;
comment on function rowbeat.consume(text, integer) is 'The next changes for a consumer; they are read when the caller''s transaction commits.';

-- Promises: the consumer goes on with what is not visible to this statement; nothing before it is read any more. Called by: a consumer that
--   begins anew: rebase, and copy the tables in the same repeatable-read transaction. Also by operators, for the router, to take note of a loss.
-- Locks: the consumer's row. SQLSTATEs: 42501.
create or replace function rowbeat.rebase_consumer(p_consumer text) returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
    perform rowbeat.refuse_stranger(p_consumer);
    update rowbeat.change_consumer c
    set position = pg_current_snapshot(), target = null, after_seq = 0, read_at = rowbeat.now_(), since = null, lost_at = null
    where c.name = p_consumer;
end $$;
comment on function rowbeat.rebase_consumer(text) is 'Lets a consumer begin anew, from now on.';
