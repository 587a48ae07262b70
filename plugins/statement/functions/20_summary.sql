-- The totals: kept from the change log, rebuilt from the raw rows, read. Whoever changes them holds the lock of the one row of statement.calendar,
-- so they come one after another; who writes transactions, or reads totals, waits for none of them.

create or replace function statement.forget_empty_merchant() returns trigger language plpgsql as $$
begin
    new.merchant_id := null;
    return new;
end $$;
comment on function statement.forget_empty_merchant() is 'Stores an empty merchant as null.';
create or replace trigger forget_empty_merchant before insert or update of merchant_id on statement.transaction
    for each row when (new.merchant_id = '') execute function statement.forget_empty_merchant();

-- Rows that people write: year, week and month are filled in, an empty merchant is none.
create or replace function statement.fill_summary() returns trigger language plpgsql as $$
begin
    new.merchant_id := nullif(new.merchant_id, '');
    select coalesce(new.year, b.year), coalesce(new.week, b.week), coalesce(new.month, b.month) into new.year, new.week, new.month
    from statement.calendar c cross join lateral statement.buckets(c.calendar, array[new.bucket_start]) b where b.granularity = new.granularity;
    return new;
end $$;
comment on function statement.fill_summary() is 'Fills in what a summary leaves out.';
create or replace trigger fill_summary before insert or update on statement.summary for each row
    when (new.year is null or new.merchant_id = '' or new.granularity = 'weekly' and new.week is null or new.granularity = 'monthly' and new.month is null)
    execute function statement.fill_summary();

-- Promises: the next changes of transactions are in the totals: new images added, old ones taken away. Returns how many changes were read; fewer than
--   p_limit: that was all. Called by: apply_changes, which holds the calendar's lock. SQLSTATEs: RB008, RP409 (a row could not be captured).
create or replace function statement.apply_piece(p_calendar statement.calendar, p_limit integer) returns integer language plpgsql volatile as $$
declare
    v_read    integer;
    v_lost    text;
    v_ended   jsonb;
begin
    with piece as materialized (
        select c.old, c.new, c.error from rowbeat.consume('statement.transactions', p_limit) c
    ), image as (
        select p.new as image, 1 as sign from piece p where p.new is not null
        union all
        select p.old, -1 from piece p where p.old is not null
    ), daily as materialized (
        select ((i.image ->> 'created_at')::timestamptz at time zone p_calendar.zone)::date as day, nullif(i.image ->> 'merchant_id', '') as merchant_id,
            sum(coalesce((i.image ->> 'amount')::numeric, 0) * i.sign) as amount, sum(i.sign) as count
        from image i where i.image ->> 'created_at' is not null
        group by 1, 2
    ), delta as (
        select b.granularity, b.bucket_start, b.year, b.week, b.month, d.merchant_id, sum(d.amount) as amount, sum(d.count)::bigint as count
        from daily d join statement.buckets(p_calendar.calendar, array(select distinct d.day from daily d)) b on b.day = d.day
        group by b.granularity, b.bucket_start, b.year, b.week, b.month, d.merchant_id
        having sum(d.amount) <> 0 or sum(d.count) <> 0
    ), put as (
        insert into statement.summary as s (granularity, bucket_start, year, week, month, merchant_id, total_amount, total_count, created_at, updated_at)
        select d.granularity, d.bucket_start, d.year, d.week, d.month, d.merchant_id, d.amount, d.count, rowbeat.now_(), rowbeat.now_() from delta d
        on conflict (granularity, merchant_id, bucket_start) do update
        set total_amount = s.total_amount + excluded.total_amount, total_count = s.total_count + excluded.total_count, updated_at = excluded.updated_at
        returning s.granularity, s.bucket_start, s.merchant_id, s.total_count
    )
    select (select count(*) from piece), (select min(p.error) from piece p),
        (select jsonb_agg(to_jsonb(p)) from put p where p.total_count = 0)
    into v_read, v_lost, v_ended;
    if v_lost is not null then
        raise exception using errcode = 'RP409', message = 'A transaction could not be captured, so the summaries are incomplete: ' || v_lost,
            hint = 'Rebuild them: rowbeat app statement rebuild-summaries';
    end if;
    delete from statement.summary s
    using jsonb_to_recordset(v_ended) e (granularity text, bucket_start date, merchant_id text)
    where (s.granularity, s.bucket_start) = (e.granularity, e.bucket_start) and s.merchant_id is not distinct from e.merchant_id and s.total_count = 0;
    return v_read;
end $$;
comment on function statement.apply_piece(statement.calendar, integer) is 'Brings the next changes into the summaries.';

-- Promises: everything that was committed before is in the totals, each change once: they and the position are written in one transaction.
-- Called by: the task of the same name, people. Locks: the calendar's row, waiting for a rebuild as long as that takes; the consumer's row.
-- SQLSTATEs: RB008 (the change log was emptied before it was read), RP409. Then a rebuild is due.
create or replace function statement.apply_changes(payload jsonb default '{}') returns jsonb language plpgsql volatile set lock_timeout = 0 as $$
declare
    v_limit     constant integer := 20000;
    v_calendar  statement.calendar;
    v_read      integer;
    v_all       bigint := 0;
begin
    select * into v_calendar from statement.calendar c for update;
    if v_calendar.rebuild_due then
        return jsonb_build_object('rebuilt', statement.rebuild_summaries());
    end if;
    loop
        v_read := statement.apply_piece(v_calendar, v_limit);
        v_all := v_all + v_read;
        exit when v_read < v_limit;
    end loop;
    return jsonb_build_object('changes', v_all);
exception when sqlstate 'RB008' then
    raise exception using errcode = 'RB008', message = 'The change log was emptied before its transactions were summed: the summaries are incomplete.',
        detail = sqlerrm, hint = 'Rebuild them: rowbeat app statement rebuild-summaries';
end $$;
comment on function statement.apply_changes(jsonb) is 'Brings all changes of transactions into the summaries.';

-- The raw rows by day and merchant, piece by piece along the table, all of them as the calling statement sees them: the function is stable, so its
-- statements have its caller's snapshot. A piece more is a notice with the share, for a command's progress bar. The zone is the session's meanwhile:
-- AT TIME ZONE would look it up by its name for each row, which takes longer than all the rest.
create or replace function statement.scan_transactions(p_zone text)
returns table (day date, merchant_id text, amount numeric, count bigint) language plpgsql stable rows 100000 set timezone = 'UTC' as $$
declare
    v_pages  bigint := pg_relation_size('statement.transaction') / current_setting('block_size')::integer;
    v_step   bigint := greatest(v_pages / 40, 1000);
    v_from   bigint := 0;
begin
    perform set_config('timezone', p_zone, true);
    loop
        -- Nothing that the snapshot sees lies behind what the table had by now, but the last piece has no end all the same.
        return query
        select t.created_at::date, nullif(t.merchant_id, '')::text, sum(t.amount), count(*)
        from statement.transaction t
        where t.created_at is not null and t.ctid >= format('(%s,0)', v_from)::tid
            and t.ctid < format('(%s,0)', case when v_from + v_step < v_pages then v_from + v_step else 4294967295 end)::tid
        group by 1, 2;
        v_from := v_from + v_step;
        if current_setting('statement.progress', true) = 'on' then
            raise notice 'Reading transactions' using detail = format('%s/%s', least(v_from, v_pages), v_pages);
        end if;
        exit when v_from >= v_pages;
    end loop;
end $$;
comment on function statement.scan_transactions(text) is 'The raw rows by day and merchant, as the caller''s snapshot has them.';

-- Promises: the totals of every bucket with raw rows are what the rows of one snapshot say, and the consumer goes on from that very snapshot: a row
--   committed meanwhile is neither missed nor counted twice. p_truncate: no other totals are left. Returns how many totals the raw rows make. Readers see
--   the old ones until the commit. Safe to repeat, in any number of copies.
-- Locks: the calendar's row, waiting for other rebuilds and for apply_changes; then the consumer's row.
-- What it computes has no statistics: told nothing, the planner merges every merchant's row of a bucket with every other's.
create or replace function statement.rebuild_summaries(p_truncate boolean default false) returns bigint language plpgsql volatile
set lock_timeout = 0 set enable_mergejoin = off set work_mem = '64MB' as $$
declare
    v_calendar  statement.calendar;
    v_snapshot  pg_snapshot;
    v_made      bigint;
begin
    select * into v_calendar from statement.calendar c for update;
    -- One statement is one snapshot, and says itself which.
    with scanned as materialized (
        select t.day, t.merchant_id, coalesce(sum(t.amount), 0) as amount, sum(t.count) as count
        from statement.scan_transactions(v_calendar.zone) t group by t.day, t.merchant_id
    ), computed as materialized (
        select b.granularity, b.bucket_start, b.year, b.week, b.month, s.merchant_id, sum(s.amount) as amount, sum(s.count)::bigint as count
        from scanned s join statement.buckets(v_calendar.calendar, array(select distinct s.day from scanned s)) b on b.day = s.day
        group by b.granularity, b.bucket_start, b.year, b.week, b.month, s.merchant_id
    ), gone as (
        delete from statement.summary s
        where p_truncate and not exists (select from computed c where c.granularity = s.granularity and c.bucket_start = s.bucket_start
            and coalesce(c.merchant_id, '') = coalesce(s.merchant_id, ''))
    ), put as (
        insert into statement.summary as s (granularity, bucket_start, year, week, month, merchant_id, total_amount, total_count, created_at, updated_at)
        select c.granularity, c.bucket_start, c.year, c.week, c.month, c.merchant_id, c.amount, c.count, n.at, n.at
        from computed c cross join (select rowbeat.now_() as at) n
        on conflict (granularity, merchant_id, bucket_start) do update
        set total_amount = excluded.total_amount, total_count = excluded.total_count, year = excluded.year, week = excluded.week, month = excluded.month,
            updated_at = excluded.updated_at
        where (s.total_amount, s.total_count, s.year, s.week, s.month)
            is distinct from (excluded.total_amount, excluded.total_count, excluded.year, excluded.week, excluded.month)
    )
    select count(*), pg_current_snapshot() into v_made, v_snapshot from computed;
    perform rowbeat.rebase_consumer('statement.transactions', v_snapshot);
    update statement.calendar c set rebuild_due = false where c.rebuild_due;
    return v_made;
end $$;
comment on function statement.rebuild_summaries(boolean) is 'Computes the summaries anew from the raw transactions.';

-- Promises: calendar, zone and all totals are the new ones, from one moment on. SQLSTATEs: RP400 (unknown calendar or zone). Locks: as a rebuild.
create or replace function statement.configure(p_calendar text, p_zone text) returns bigint language plpgsql volatile as $$
begin
    if p_calendar is null or p_calendar not in ('jalali', 'iso') then
        raise exception using errcode = 'RP400', message = format('There is no calendar %s: jalali or iso.', coalesce(p_calendar, 'null'));
    elsif p_zone is null or not exists (select from pg_catalog.pg_timezone_names z where z.name = p_zone) then
        raise exception using errcode = 'RP400', message = format('The server knows no time zone %s.', coalesce(p_zone, 'null')),
            hint = 'A full name is needed, such as Asia/Tehran or UTC: select name from pg_timezone_names;';
    end if;
    update statement.calendar c set calendar = p_calendar, zone = p_zone;
    return statement.rebuild_summaries(true);
end $$;
comment on function statement.configure(text, text) is 'Sets calendar and zone, and computes the summaries anew.';

-- The points of a chart, in the order of their buckets: of one merchant, or of all (null or empty) summed. Reads summary and calendar only.
-- SQLSTATEs: RP400, with {"mode": …} or {"type": …} as its detail.
create or replace function statement.summary_points(p_mode text, p_type text, p_merchant_id text default null)
returns table (key text, value numeric) language plpgsql stable as $$
declare
    v_starts  date[];
    v_values  numeric[];
begin
    if p_mode is null or p_mode not in ('daily', 'weekly', 'monthly') then
        raise exception using errcode = 'RP400', message = 'Invalid mode', detail = '{"mode": "Invalid mode"}';
    elsif p_type is null or p_type not in ('amount', 'count') then
        raise exception using errcode = 'RP400', message = 'Invalid type', detail = '{"type": "Invalid type"}';
    end if;
    if p_merchant_id <> '' then
        select array_agg(s.bucket_start order by s.bucket_start),
            array_agg(case p_type when 'amount' then s.total_amount else s.total_count end order by s.bucket_start)
        into v_starts, v_values
        from statement.summary s where s.granularity = p_mode and s.merchant_id = p_merchant_id;
    else
        select array_agg(p.bucket_start order by p.bucket_start), array_agg(p.value order by p.bucket_start) into v_starts, v_values
        from (select s.bucket_start, sum(case p_type when 'amount' then s.total_amount else s.total_count end) as value
            from statement.summary s where s.granularity = p_mode group by s.bucket_start) p;
    end if;
    return query
    select k.key, p.value
    from unnest(v_starts, v_values) with ordinality p (bucket_start, value, n)
    join statement.bucket_keys((select c.calendar from statement.calendar c), p_mode, v_starts) k on k.bucket_start = p.bucket_start
    order by p.n;
end $$;
comment on function statement.summary_points(text, text, text) is 'Totals by day, week or month, of one merchant or all.';

-- GET /api/transactions/summary. The document is written here: a sum may have more digits than a JSON number keeps elsewhere.
create or replace function statement.get_summary(request jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('text', coalesce('[' || string_agg(format('{"key": %s, "value": %s}', to_json(p.key), p.value), ', ') || ']', '[]'))
    from statement.summary_points(request #>> '{input,mode}', request #>> '{input,type}', request #>> '{input,merchant_id}') p
$$;
comment on function statement.get_summary(jsonb) is 'GET /api/transactions/summary';
