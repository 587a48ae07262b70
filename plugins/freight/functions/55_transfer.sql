-- Shipments on their way to the billing queue, and back.

-- Promises: the exception is on record as open, once for each row (or shipment), kind and message; it is counted.
create or replace function freight.note_exception(p_type text, p_shipment freight.shipment, p_queue_id uuid, p_message text) returns void
language sql volatile as $$
    insert into freight.billing_exception as e (organization_id, exception_type, shipment_id, queue_id, exception_message, last_seen_at)
    values (p_shipment.organization_id, p_type, p_shipment.id, p_queue_id, p_message, rowbeat.now_())
    on conflict (coalesce(queue_id, shipment_id), exception_type, md5(exception_message)) where resolved_at is null
    do update set occurrences = e.occurrences + 1, last_seen_at = excluded.last_seen_at
$$;
comment on function freight.note_exception(text, freight.shipment, uuid, text) is 'Notes why an invoice is not billed.';

-- Whether a shipment may go to the billing queue.
create or replace function freight.is_transferable(p_shipment freight.shipment, p_criterion text) returns boolean language sql immutable as $$
    select not p_shipment.billed and not p_shipment.transferred_to_billing and p_shipment.billing_transfer_date is null and case p_criterion
        when 'READY_AND_COMPLETED' then p_shipment.status = 'C' and p_shipment.ready_to_bill
        when 'COMPLETED' then p_shipment.status = 'C'
        when 'READY_TO_BILL' then p_shipment.ready_to_bill end
$$;
comment on function freight.is_transferable(freight.shipment, text) is 'Whether a shipment may go to the billing queue.';

-- Promises: the user's organization's shipments that are eligible (of those named, if any are) are in the billing queue, each wholly or not
--   at all; one that fails is an exception and does not touch the others. Returns a sentence. Safe to repeat.
-- Locks: each shipment, in the order of pro numbers. SQLSTATEs: RP404 (user), RP409 (none is eligible).
create or replace function freight.transfer_shipments(p_user_id uuid, p_pro_numbers text[], p_task_id bigint) returns text language plpgsql volatile as $$
declare
    v_user       freight.app_user := freight.acting_user(p_user_id);
    v_criterion  text := (select c.transfer_criterion from freight.billing_control c where c.organization_id = v_user.organization_id);
    v_shipment   freight.shipment;
    v_found      integer := 0;
    v_done       integer := 0;
begin
    for v_shipment in
        select s.* from freight.shipment s
        where s.organization_id = v_user.organization_id and (p_pro_numbers is null or s.pro_number = any (p_pro_numbers))
            and freight.is_transferable(s, v_criterion)
        order by s.pro_number
    loop
        begin
            -- Somebody else may have been faster.
            select * into v_shipment from freight.shipment s where s.id = v_shipment.id for update;
            continue when not found or not freight.is_transferable(v_shipment, v_criterion);
            v_found := v_found + 1;
            insert into freight.billing_queue (organization_id, shipment_id, ready_to_bill, user_id)
            values (v_shipment.organization_id, v_shipment.id, v_shipment.ready_to_bill, v_user.id);
            update freight.shipment s set transferred_to_billing = true, billing_transfer_date = rowbeat.now_() where s.id = v_shipment.id;
            insert into freight.billing_transfer_log (organization_id, shipment_id, task_id, transferred_at, transferred_by)
            values (v_shipment.organization_id, v_shipment.id, p_task_id, rowbeat.now_(), v_user.id);
            v_done := v_done + 1;
        exception when others then
            perform freight.note_exception('OTHER', v_shipment, null,
                format('Order %s failed to transfer to billing queue: %s', v_shipment.pro_number, sqlerrm));
        end;
    end loop;
    if v_found = 0 then
        raise exception using errcode = 'RP409', message = 'No orders found to be eligible for transfer. Orders must be marked ' || v_criterion;
    end if;
    return format('Successfully transferred %s orders to billing queue.', v_done);
end $$;
comment on function freight.transfer_shipments(uuid, text[], bigint) is 'Moves eligible shipments to the billing queue.';

create or replace function freight.transfer_to_billing(p_user_id uuid, p_pro_numbers text[] default null) returns text language sql volatile as $$
    select freight.transfer_shipments(p_user_id, p_pro_numbers, null)
$$;
comment on function freight.transfer_to_billing(uuid, text[]) is 'Moves eligible shipments to the billing queue; returns how it went.';

-- The task: that nothing is eligible is an answer, and no reason to try again.
create or replace function freight.transfer_to_billing_task(payload jsonb) returns jsonb language plpgsql volatile as $$
begin
    return to_jsonb(freight.transfer_shipments((payload ->> 'user_id')::uuid,
        case when payload ->> 'order_pros' is not null then array(select jsonb_array_elements_text(payload -> 'order_pros')) end, freight.own_task_id()));
exception when sqlstate 'RP409' then
    return to_jsonb(sqlerrm);
end $$;
comment on function freight.transfer_to_billing_task(jsonb) is 'Moves eligible shipments to the billing queue.';

-- The task whose function runs; null outside of one.
create or replace function freight.own_task_id() returns bigint language sql stable as $$
    select nullif(current_setting('rowbeat.task_id', true), '')::bigint
$$;
comment on function freight.own_task_id() is 'The task that runs.';

-- Promises: the organization's queue rows with these numbers are gone and their shipments can be transferred again. Returns how many rows.
-- Locks: the rows, then their shipments.
create or replace function freight.untransfer(p_organization_id uuid, p_invoice_numbers text[]) returns integer language plpgsql volatile as $$
declare
    v_row      freight.billing_queue;
    v_removed  integer := 0;
begin
    for v_row in
        select q.* from freight.billing_queue q
        where q.organization_id = p_organization_id and q.invoice_number = any (p_invoice_numbers) order by q.id for update
    loop
        perform from freight.shipment s where s.id = v_row.shipment_id for update;
        delete from freight.billing_queue q where q.id = v_row.id;
        update freight.shipment s set transferred_to_billing = false, billing_transfer_date = null
        where s.id = v_row.shipment_id and not s.billed and not exists (select from freight.billing_queue q where q.shipment_id = s.id);
        update freight.billing_exception e set resolved_at = rowbeat.now_() where e.queue_id = v_row.id and e.resolved_at is null;
        v_removed := v_removed + 1;
    end loop;
    return v_removed;
end $$;
comment on function freight.untransfer(uuid, text[]) is 'Takes invoices out of the billing queue.';

-- Names of the document classes that a shipment lacks for its customer's profile, sorted; empty: complete.
create or replace function freight.missing_documents(p_shipment_id uuid, p_profile_id uuid) returns text[] language sql stable as $$
    select coalesce(array_agg(c.name::text order by c.name collate "C"), '{}')
    from freight.customer_rule_document d join freight.document_class c on c.id = d.document_class_id
    where d.profile_id = p_profile_id and not exists (select from freight.shipment_document s
        where s.shipment_id = p_shipment_id and s.document_class_id = d.document_class_id)
$$;
comment on function freight.missing_documents(uuid, uuid) is 'Documents that a shipment lacks.';

-- Promises: what is complete is marked where the organization or the customer wants that. Returns how many. Safe to repeat.
create or replace function freight.mark_ready_to_bill() returns integer language plpgsql volatile as $$
declare
    v_marked  integer;
begin
    update freight.shipment s set ready_to_bill = true
    from freight.billing_control b, freight.customer c, freight.customer_rule_profile p
    where b.organization_id = s.organization_id and c.id = s.customer_id and p.customer_id = c.id and not s.ready_to_bill and not s.billed
        and s.status = 'C' and (b.auto_mark_ready_to_bill or c.auto_mark_ready_to_bill) and freight.missing_documents(s.id, p.id) = '{}';
    get diagnostics v_marked = row_count;
    return v_marked;
end $$;
comment on function freight.mark_ready_to_bill() is 'Marks completed shipments whose documents are complete.';
