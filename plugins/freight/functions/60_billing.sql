-- Billing: one row, all of an organization, all that are entitled.

-- Promises: a row that is there, not cancelled and complete is billed: history, shipment, mail and all, or nothing of it. What stands in its
--   way is noted. True: it was billed now. Safe to repeat; of two at once the second finds nothing (p_wait false: passes over a locked row).
-- Locks: the row, then its shipment.
create or replace function freight.bill_row(p_queue_id uuid, p_user freight.app_user, p_task_id bigint, p_wait boolean) returns boolean
language plpgsql volatile as $$
declare
    v_row       freight.billing_queue;
    v_shipment  freight.shipment;
    v_billed    boolean := false;
begin
    if p_wait then
        select * into v_row from freight.billing_queue q where q.id = p_queue_id for update;
    else
        select * into v_row from freight.billing_queue q where q.id = p_queue_id for update skip locked;
    end if;
    if v_row.id is null or v_row.is_cancelled then
        return false;
    end if;
    begin
        select * into v_shipment from freight.shipment s where s.id = v_row.shipment_id for update;
        if freight.may_be_billed(v_row, v_shipment) then
            perform freight.book(v_row, v_shipment, p_user, p_task_id);
            v_billed := true;
        end if;
    exception when others then
        perform freight.note_exception('OTHER', v_shipment, v_row.id, format('Order %s failed to be billed: %s', v_shipment.pro_number, sqlerrm));
        return false;
    end;
    return v_billed;
end $$;
comment on function freight.bill_row(uuid, freight.app_user, bigint, boolean) is 'Bills a row of the queue, wholly or not at all.';

-- Whether a row keeps its customer's rules; what is missing is noted.
create or replace function freight.may_be_billed(p_row freight.billing_queue, p_shipment freight.shipment) returns boolean language plpgsql volatile as $$
declare
    v_customer  freight.customer;
    v_profile   uuid;
    v_missing   text[];
begin
    if not (select c.enforce_customer_billing from freight.billing_control c where c.organization_id = p_row.organization_id) then
        return true;
    end if;
    select * into v_customer from freight.customer c where c.id = p_row.customer_id;
    select p.id into v_profile from freight.customer_rule_profile p where p.customer_id = v_customer.id;
    if v_profile is null then
        perform freight.note_exception('OTHER', p_shipment, p_row.id, format('Customer: %s does not have a billing profile', v_customer.name));
        return false;
    end if;
    v_missing := freight.missing_documents(p_row.shipment_id, v_profile);
    if v_missing <> '{}' then
        perform freight.note_exception('PAPERWORK', p_shipment, p_row.id, format('Missing customer required documents: [%s]', array_to_string(v_missing, ', '))),
            freight.note_exception('PAPERWORK', p_shipment, p_row.id, 'Billing requirement not met');
        return false;
    end if;
    return true;
end $$;
comment on function freight.may_be_billed(freight.billing_queue, freight.shipment) is 'Whether a row of the queue keeps its customer''s rules.';

-- Books a row. Called by: bill_row, in a savepoint, with row and shipment locked.
create or replace function freight.book(p_row freight.billing_queue, p_shipment freight.shipment, p_user freight.app_user, p_task_id bigint) returns void
language plpgsql volatile as $$
declare
    v_now  timestamptz := rowbeat.now_();
begin
    update freight.shipment s set billed = true, status = 'B', bill_date = v_now where s.id = p_shipment.id;
    insert into freight.billing_history (organization_id, queue_id, shipment_id, customer_id, bill_type, invoice_number, suffix_no, ready_to_bill, bill_date,
        is_summary, is_cancelled, order_type, revenue_code, commodity, bol_number, worker, pieces, weight, mileage, freight_charge_amount,
        other_charge_amount, total_amount, user_id, billed_at, billed_by, task_id)
    values (p_row.organization_id, p_row.id, p_row.shipment_id, p_row.customer_id, p_row.bill_type, p_row.invoice_number, p_row.suffix_no,
        p_row.ready_to_bill, v_now, p_row.is_summary, p_row.is_cancelled, p_row.order_type, p_row.revenue_code, p_row.commodity, p_row.bol_number,
        p_shipment.primary_worker, p_row.pieces, p_row.weight, p_row.mileage, p_row.freight_charge_amount, p_row.other_charge_amount, p_row.total_amount,
        p_row.user_id, v_now, p_user.id, p_task_id);
    delete from freight.billing_queue q where q.id = p_row.id;
    update freight.billing_exception e set resolved_at = v_now where e.queue_id = p_row.id and e.resolved_at is null;
    perform freight.enqueue_mail('freight.send_mail', jsonb_build_object(
        'organization_id', p_row.organization_id,
        'to', jsonb_build_array(coalesce((select c.email from freight.customer_contact c where c.customer_id = p_row.customer_id and c.is_payable
            order by c.position, c.created_at limit 1), p_user.email)),
        'subject', 'New invoice from ' || o.name,
        'text', 'Please see attached invoice for invoice: ' || p_shipment.pro_number,
        'email_profile_id', c.billing_email_profile_id, 'sender', p_user.email,
        'attachments', jsonb_build_array(jsonb_build_object('name', p_row.invoice_number || '.txt', 'template', 'invoice.txt')),
        'data', jsonb_build_object('organization', o.name, 'currency', o.currency, 'invoice_number', p_row.invoice_number, 'bill_type', p_row.bill_type,
            'bill_date', freight.local_date(o.time_zone, v_now), 'due_date', freight.local_date(o.time_zone, v_now) + c.invoice_due_after_days,
            'customer', (select k.name from freight.customer k where k.id = p_row.customer_id), 'pro_number', p_shipment.pro_number,
            'bol_number', coalesce(p_row.bol_number, ''), 'commodity', coalesce(p_row.commodity, ''), 'pieces', p_row.pieces, 'weight', p_row.weight,
            'mileage', p_row.mileage, 'freight_charge_amount', p_row.freight_charge_amount::text, 'other_charge_amount', p_row.other_charge_amount::text,
            'total_amount', p_row.total_amount::text)), null)
    from freight.organization o join freight.billing_control c on c.organization_id = o.id where o.id = p_row.organization_id;
end $$;
comment on function freight.book(freight.billing_queue, freight.shipment, freight.app_user, bigint) is 'Books a row of the queue into the history.';

create or replace function freight.bill_queue_row(p_queue_id uuid, p_user_id uuid, p_task_id bigint default null) returns boolean
language plpgsql volatile as $$
declare
    v_user  freight.app_user := freight.acting_user(p_user_id);
begin
    if not exists (select from freight.billing_queue q where q.id = p_queue_id and q.organization_id = v_user.organization_id) then
        return false;
    end if;
    return freight.bill_row(p_queue_id, v_user, p_task_id, true);
end $$;
comment on function freight.bill_queue_row(uuid, uuid, bigint) is 'Bills one row of the user''s organization''s queue, ready or not; false: it was not billed.';

create or replace function freight.bill_invoice_task(payload jsonb) returns jsonb language sql volatile as $$
    select jsonb_build_object('billed', freight.bill_queue_row((payload ->> 'invoice_id')::uuid, (payload ->> 'user_id')::uuid, freight.own_task_id()))
$$;
comment on function freight.bill_invoice_task(jsonb) is 'Bills one row of the queue.';

-- Promises: the user's organization's rows that are ready are billed, the oldest first; each wholly or not at all. Returns how many were.
create or replace function freight.mass_bill(p_user_id uuid, p_task_id bigint default null) returns integer language plpgsql volatile as $$
declare
    v_user    freight.app_user := freight.acting_user(p_user_id);
    v_row     uuid;
    v_found   boolean := false;
    v_billed  integer := 0;
begin
    for v_row in
        select q.id from freight.billing_queue q
        where q.organization_id = v_user.organization_id and q.ready_to_bill and not q.is_cancelled order by q.created_at, q.id
    loop
        v_found := true;
        v_billed := v_billed + freight.bill_row(v_row, v_user, p_task_id, true)::integer;
    end loop;
    if not v_found then
        insert into freight.user_notification (organization_id, user_id, message)
        values (v_user.organization_id, v_user.id, 'No Orders in the billing queue for task: ' || coalesce(p_task_id::text, ''));
    end if;
    return v_billed;
end $$;
comment on function freight.mass_bill(uuid, bigint) is 'Bills all ready rows of the user''s organization.';

create or replace function freight.mass_order_billing_task(payload jsonb) returns jsonb language sql volatile as $$
    select jsonb_build_object('billed', freight.mass_bill((payload ->> 'user_id')::uuid, freight.own_task_id()))
$$;
comment on function freight.mass_order_billing_task(jsonb) is 'Bills all ready rows of the user''s organization.';

-- Promises: of each organization that bills by itself and is entitled now, the rows of its own queue that meet its criterion are billed,
--   at most so many a run (those without open exceptions first, so that hopeless ones are in nobody's way); what somebody else has locked
--   is passed over. Returns a line an organization. Safe to repeat and in any number of copies. SQLSTATEs: RP404.
create or replace function freight.auto_mass_billing_for_all_orgs(p_task_id bigint default null) returns text language plpgsql volatile as $$
declare
    v_user          freight.app_user := freight.user_of('sys');
    v_organization  record;
    v_row           uuid;
    v_lines         text[] := '{}';
begin
    if v_user.id is null then
        raise exception using errcode = 'RP404', message = 'System user sys does not exist.';
    end if;
    for v_organization in
        select o.id, o.name, c.auto_bill_criterion from freight.organization o join freight.billing_control c on c.organization_id = o.id
        cross join (select rowbeat.now_() as at) n
        where c.auto_bill and freight.is_entitled(o.id, 'billing', n.at) and freight.is_entitled(o.id, 'auto_billing', n.at)
        order by o.name
    loop
        begin
            for v_row in
                select q.id from freight.billing_queue q join freight.shipment s on s.id = q.shipment_id
                where q.organization_id = v_organization.id and not q.is_cancelled and case v_organization.auto_bill_criterion
                    when 'ORDER_DELIVERY' then s.status = 'C' when 'TRANSFERRED_TO_BILL' then true when 'MARKED_READY' then q.ready_to_bill end
                order by exists (select from freight.billing_exception e where e.queue_id = q.id and e.resolved_at is null), q.created_at, q.id
                limit rowbeat.read_setting('freight', 'auto_bill_limit')::integer
            loop
                perform freight.bill_row(v_row, v_user, p_task_id, false);
            end loop;
            v_lines := v_lines || format('Automated Mass Billing Task for %s was successful.', v_organization.name);
        exception when others then
            v_lines := v_lines || format('Automated Mass Billing Task for %s failed: %s', v_organization.name, sqlerrm);
        end;
    end loop;
    return case when v_lines = '{}' then 'No organizations have auto billing enabled.' else array_to_string(v_lines, E'\n') end;
end $$;
comment on function freight.auto_mass_billing_for_all_orgs(bigint) is 'Bills the queues of organizations that bill by themselves and are entitled.';

create or replace function freight.auto_billing_task(payload jsonb) returns text language sql volatile as $$
    select freight.auto_mass_billing_for_all_orgs(freight.own_task_id())
$$;
comment on function freight.auto_billing_task(jsonb) is 'Bills the queues of organizations that bill by themselves and are entitled.';
