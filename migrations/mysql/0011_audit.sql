-- least-binary: 0.1.0
--
-- Who ordered what: a row for each order that people gave and that was carried out. Nothing else reads it.

CREATE TABLE IF NOT EXISTS turnwise_audit (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at DATETIME(6) NOT NULL,
    actor VARCHAR(200) NOT NULL,
    role VARCHAR(16) NOT NULL,
    action VARCHAR(32) NOT NULL,
    subject VARCHAR(512) NOT NULL,
    -- How many it touched; none: the database's answer was lost, and it may have been carried out.
    affected BIGINT,
    -- Enqueues are the most, and the first to go.
    INDEX turnwise_audit_of_actions (action, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
