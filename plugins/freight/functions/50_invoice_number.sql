-- Invoice numbers and what a row of the billing queue takes from its shipment.

-- The letters of a number: 0 none, 1 A, 26 Z, 27 AA.
create or replace function freight.suffix(p_number integer) returns text language sql immutable as $$
    with recursive letters (rest, text) as (
        values (p_number, '')
        union all
        select (l.rest - 1) / 26, chr(65 + (l.rest - 1) % 26) || l.text from letters l where l.rest > 0
    )
    select l.text from letters l where l.rest <= 0
$$;
comment on function freight.suffix(integer) is 'The letters that follow a pro number.';

-- Promises: the row has its shipment's columns where it says nothing else, and a number that is its own in queue and history (a credit has
--   that of the newest row). Numbers are claimed in invoice_number, where two that would be equal meet, whatever shipments they come from.
-- Locks: the shipment, then the claimed number. SQLSTATEs: RP400, RP404, RP409.
create or replace function freight.number_invoice() returns trigger language plpgsql as $$
declare
    v_shipment  freight.shipment;
    v_prefix    text;
    v_newest    record;
begin
    select * into v_shipment from freight.shipment s where s.id = new.shipment_id for update;
    if not found then
        raise exception using errcode = 'RP404', message = format('Order %s does not exist.', new.shipment_id);
    end if;
    new.organization_id := v_shipment.organization_id;
    new.customer_id := coalesce(new.customer_id, v_shipment.customer_id);
    new.order_type := coalesce(new.order_type, v_shipment.order_type);
    new.revenue_code := coalesce(new.revenue_code, v_shipment.revenue_code);
    new.commodity := coalesce(new.commodity, v_shipment.commodity);
    new.bol_number := coalesce(new.bol_number, v_shipment.bol_number);
    new.worker := coalesce(new.worker, v_shipment.primary_worker);
    new.pieces := coalesce(new.pieces, v_shipment.pieces);
    new.weight := coalesce(new.weight, v_shipment.weight);
    new.mileage := coalesce(new.mileage, v_shipment.mileage);
    new.freight_charge_amount := coalesce(new.freight_charge_amount, v_shipment.freight_charge_amount);
    new.other_charge_amount := coalesce(new.other_charge_amount, v_shipment.other_charge_amount);
    new.total_amount := coalesce(new.total_amount, v_shipment.total_amount);
    select c.invoice_number_prefix into v_prefix from freight.billing_control c where c.organization_id = new.organization_id;
    select r.invoice_number, r.suffix_no into v_newest from (
        select q.invoice_number, q.suffix_no, q.created_at from freight.billing_queue q where q.shipment_id = new.shipment_id
        union all
        select h.invoice_number, h.suffix_no, h.created_at from freight.billing_history h where h.shipment_id = new.shipment_id
    ) r order by r.suffix_no desc, r.created_at desc limit 1;
    if coalesce(new.invoice_number, '') <> '' then
        if not starts_with(new.invoice_number, v_prefix) then
            raise exception using errcode = 'RP400',
                message = 'Invoice number must start with invoice prefix from Organization''s invoice_control. Please try again.';
        end if;
        new.suffix_no := coalesce(v_newest.suffix_no, 0);
        if new.bill_type <> 'CREDIT' then
            insert into freight.invoice_number (organization_id, number, shipment_id) values (new.organization_id, new.invoice_number, new.shipment_id)
            on conflict do nothing;
            if not found then
                raise exception using errcode = 'RP409', message = format('Invoice number %s is taken.', new.invoice_number);
            end if;
        end if;
        return new;
    elsif new.bill_type = 'CREDIT' and v_newest.invoice_number is not null then
        new.invoice_number := v_newest.invoice_number;
        new.suffix_no := v_newest.suffix_no;
        return new;
    end if;
    new.suffix_no := coalesce(v_newest.suffix_no + 1, 0);
    loop
        new.invoice_number := v_prefix || v_shipment.pro_number || freight.suffix(new.suffix_no);
        exit when new.bill_type = 'CREDIT';
        insert into freight.invoice_number (organization_id, number, shipment_id) values (new.organization_id, new.invoice_number, new.shipment_id)
        on conflict do nothing;
        exit when found;
        new.suffix_no := new.suffix_no + 1;
    end loop;
    return new;
end $$;
comment on function freight.number_invoice() is 'Completes a new row of the billing queue and numbers it.';
create or replace trigger number_invoice before insert on freight.billing_queue
    for each row execute function freight.number_invoice();

-- A save never renumbers.
create or replace function freight.keep_invoice_number() returns trigger language plpgsql as $$
begin
    new.invoice_number := old.invoice_number;
    new.suffix_no := old.suffix_no;
    new.shipment_id := old.shipment_id;
    new.organization_id := old.organization_id;
    return new;
end $$;
comment on function freight.keep_invoice_number() is 'Keeps the number of a row of the billing queue.';
create or replace trigger keep_invoice_number before update on freight.billing_queue
    for each row execute function freight.keep_invoice_number();

-- A number is free again when its row went without having been billed.
create or replace function freight.free_invoice_number() returns trigger language plpgsql as $$
begin
    if old.bill_type <> 'CREDIT' and not exists (select from freight.billing_history h where h.queue_id = old.id) then
        delete from freight.invoice_number n where n.organization_id = old.organization_id and n.number = old.invoice_number;
    end if;
    return null;
end $$;
comment on function freight.free_invoice_number() is 'Frees the number of a row that was not billed.';
create or replace trigger free_invoice_number after delete on freight.billing_queue
    for each row execute function freight.free_invoice_number();

-- SQLSTATEs: RP400.
create or replace function freight.check_billing_control() returns trigger language plpgsql as $$
begin
    if new.auto_bill and new.auto_bill_criterion is null then
        raise exception using errcode = 'RP400', message = 'Auto Billing criteria is required when `Auto Bill Orders` is on. Please try again.';
    end if;
    return new;
end $$;
comment on function freight.check_billing_control() is 'Refuses auto billing without a criterion.';
create or replace trigger check_billing_control before insert or update on freight.billing_control
    for each row execute function freight.check_billing_control();
