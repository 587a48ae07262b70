-- The dashboard's figures: computed when something changes, and read from one row.

-- Promises: the row holds the figures of what is committed by now. Called by: the task hotspot.refresh_dashboard, a recovery, the installation.
create or replace function hotspot.refresh_dashboard(payload jsonb default '{}') returns jsonb language plpgsql volatile as $$
declare
    v_zone     text := hotspot.zone();
    v_today    date := (rowbeat.now_() at time zone v_zone)::date;
    v_payload  jsonb;
begin
    with figures as materialized (
        select s.bundle_code, (s.created_at at time zone v_zone)::date as day, count(*) as sales, count(s.paid_at) as paid,
            coalesce(sum(s.amount) filter (where s.paid_at is not null), 0) - coalesce(sum(s.refunded_amount), 0) as revenue,
            count(*) filter (where s.payment_status and not s.voucher_code_received and s.status <> 'refunded') as waiting
        from hotspot.sale s group by 1, 2
    )
    select jsonb_build_object('zone', v_zone,
        'sales', coalesce(sum(f.sales), 0), 'paid', coalesce(sum(f.paid), 0), 'revenue', coalesce(sum(f.revenue), 0), 'pending_refunds', coalesce(sum(f.waiting), 0),
        'unclaimed_vouchers', (select count(*) from hotspot.voucher v where not v.claimed),
        'bundles', (select coalesce(jsonb_agg(jsonb_build_object('bundle', b.bundle_code, 'sales', b.sales, 'revenue', b.revenue,
                'share', case when b.most > 0 then round(100 * b.revenue / b.most) else 0 end) order by b.revenue desc, b.bundle_code), '[]')
            from (select g.bundle_code, sum(g.sales) as sales, sum(g.revenue) as revenue, max(sum(g.revenue)) over () as most from figures g group by 1) b),
        'days', (select jsonb_agg(jsonb_build_object('day', d.day, 'sales', d.sales, 'revenue', d.revenue,
                'share', case when d.most > 0 then round(100 * d.revenue / d.most) else 0 end) order by d.day)
            from (select c.day, coalesce(sum(g.sales), 0) as sales, coalesce(sum(g.revenue), 0) as revenue, max(sum(g.revenue)) over () as most
                from (select v_today - n as day from generate_series(0, 29) n) c left join figures g on g.day = c.day group by c.day) d))
    into v_payload from figures f;
    insert into hotspot.dashboard as d (payload, computed_at) values (v_payload, rowbeat.now_())
    on conflict (only_row) do update set payload = excluded.payload, computed_at = excluded.computed_at;
    return null;
end $$;
comment on function hotspot.refresh_dashboard(jsonb) is 'Computes the dashboard''s figures.';

do $$ begin perform hotspot.refresh_dashboard(); end $$;
