-- Two invoices of a shipment have different numbers, a credit has that of the newest.
do $$
declare
    v_organization  uuid;
    v_shipment      uuid;
    v_customer      uuid;
begin
    insert into freight.organization (name, scac_code) values ('plugin test', 'test') returning id into v_organization;
    insert into freight.customer (organization_id, name) values (v_organization, 'c') returning id into v_customer;
    insert into freight.shipment (organization_id, pro_number, customer_id) values (v_organization, 'P', v_customer) returning id into v_shipment;
    insert into freight.billing_queue (organization_id, shipment_id, bill_type)
    select v_organization, v_shipment, t from unnest(array['INVOICE', 'INVOICE', 'CREDIT']) with ordinality u (t, n) order by n;
    assert (select array_agg(q.invoice_number::text order by q.suffix_no, q.bill_type) from freight.billing_queue q where q.shipment_id = v_shipment)
        = '{INV-P,INV-PA,INV-PA}', 'numbers';
end $$;
