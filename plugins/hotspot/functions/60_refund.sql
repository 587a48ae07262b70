-- Refunds.

-- Promises: the payback of a sale is on record, once, however many ask; nothing is delivered for it any more, and a user that the router may have is
--   removed. It returns no money: the clerk does. Locks: the sale, then its waiting delivery.
-- SQLSTATEs: RP400 (no reason), RP404, RP409 (refunded, not paid, being delivered, or delivered and not overridden). Called by: the refund page.
create or replace function hotspot.refund(p_sale_id uuid, p_reason text, p_actor text, p_override boolean default false) returns void language plpgsql volatile as $$
declare
    v_sale    hotspot.sale;
    v_reason  text := regexp_replace(coalesce(p_reason, ''), '^\s+|\s+$', '', 'g');
begin
    select * into v_sale from hotspot.sale s where s.id = p_sale_id for update;
    if v_reason = '' then
        perform hotspot.refuse('RP400', 'Reason is required.');
    elsif v_sale.id is null then
        perform hotspot.refuse('RP404', format('Transaction %s does not exist.', p_sale_id));
    elsif v_sale.status = 'refunded' then
        perform hotspot.refuse('RP409', 'Transaction is already refunded.');
    elsif v_sale.paid_at is null then
        perform hotspot.refuse('RP409', 'Only a paid transaction can be refunded.');
    elsif hotspot.is_being_delivered(p_sale_id) then
        perform hotspot.refuse('RP409', 'A delivery attempt is running. Try again in a moment.');
    elsif v_sale.delivered_at is not null and not coalesce(p_override, false) then
        perform hotspot.refuse('RP409', 'Voucher was delivered. Confirm the override to refund.');
    end if;
    update hotspot.sale s set status = 'refunded', refunded_at = rowbeat.now_(), refunded_amount = s.amount, refund_reason = v_reason,
        refunded_by = coalesce(nullif(p_actor, ''), hotspot.actor()), refund_override = coalesce(p_override, false)
    where s.id = p_sale_id;
    -- One that is claimed just now finds a refunded sale, and ends.
    delete from rowbeat.own_task t using hotspot.delivery d
    where d.sale_id = p_sale_id and t.id = d.task_id and t.state in ('scheduled', 'available', 'retryable');
    perform hotspot.revoke(p_sale_id);
    perform hotspot.add_log(p_actor, 'refund', 'sale', p_sale_id::text, v_sale.full_name, format('GHc%s: %s%s', trim_scale(v_sale.amount), v_reason,
        case when v_sale.delivered_at is not null then ' (delivered, overridden)' else '' end));
end $$;
comment on function hotspot.refund(uuid, text, text, boolean) is 'Records the refund of a sale.';

-- What has been paid and neither delivered nor refunded, oldest first.
create or replace view hotspot.refundable as
select s.id, s.full_name, s.phone_number, s.bundle_code, s.amount, s.mtn_transaction_id, s.paid_at, s.last_error,
    date_trunc('second', rowbeat.now_() - s.paid_at) as age
from hotspot.sale s where s.paid_at is not null and s.delivered_at is null and s.refunded_at is null
order by s.created_at, s.id;
comment on view hotspot.refundable is 'What the refund page shows.';
