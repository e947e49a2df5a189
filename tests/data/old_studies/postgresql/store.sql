CREATE TYPE studydirection AS ENUM (
    'NOT_SET',
    'MINIMIZE',
    'MAXIMIZE'
);
CREATE TYPE trialintermediatevaluetype AS ENUM (
    'FINITE',
    'INF_POS',
    'INF_NEG',
    'NAN'
);
CREATE TYPE trialstate AS ENUM (
    'RUNNING',
    'COMPLETE',
    'PRUNED',
    'FAIL',
    'WAITING'
);
CREATE TYPE trialvaluetype AS ENUM (
    'FINITE',
    'INF_POS',
    'INF_NEG'
);
CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE studies (
    study_id integer NOT NULL,
    study_name character varying(512) NOT NULL
);
CREATE SEQUENCE studies_study_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE studies_study_id_seq OWNED BY studies.study_id;
CREATE TABLE study_directions (
    study_direction_id integer NOT NULL,
    direction studydirection NOT NULL,
    study_id integer NOT NULL,
    objective integer NOT NULL
);
CREATE SEQUENCE study_directions_study_direction_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE study_directions_study_direction_id_seq OWNED BY study_directions.study_direction_id;
CREATE TABLE study_system_attributes (
    study_system_attribute_id integer NOT NULL,
    study_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE study_system_attributes_study_system_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE study_system_attributes_study_system_attribute_id_seq OWNED BY study_system_attributes.study_system_attribute_id;
CREATE TABLE study_user_attributes (
    study_user_attribute_id integer NOT NULL,
    study_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE study_user_attributes_study_user_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE study_user_attributes_study_user_attribute_id_seq OWNED BY study_user_attributes.study_user_attribute_id;
CREATE TABLE trial_heartbeats (
    trial_heartbeat_id integer NOT NULL,
    trial_id integer NOT NULL,
    heartbeat timestamp without time zone NOT NULL
);
CREATE SEQUENCE trial_heartbeats_trial_heartbeat_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trial_heartbeats_trial_heartbeat_id_seq OWNED BY trial_heartbeats.trial_heartbeat_id;
CREATE TABLE trial_intermediate_values (
    trial_intermediate_value_id integer NOT NULL,
    trial_id integer NOT NULL,
    step integer NOT NULL,
    intermediate_value double precision,
    intermediate_value_type trialintermediatevaluetype NOT NULL
);
CREATE SEQUENCE trial_intermediate_values_trial_intermediate_value_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trial_intermediate_values_trial_intermediate_value_id_seq OWNED BY trial_intermediate_values.trial_intermediate_value_id;
CREATE TABLE trial_params (
    param_id integer NOT NULL,
    trial_id integer,
    param_name character varying(512),
    param_value double precision,
    distribution_json text
);
CREATE SEQUENCE trial_params_param_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trial_params_param_id_seq OWNED BY trial_params.param_id;
CREATE TABLE trial_system_attributes (
    trial_system_attribute_id integer NOT NULL,
    trial_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE trial_system_attributes_trial_system_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trial_system_attributes_trial_system_attribute_id_seq OWNED BY trial_system_attributes.trial_system_attribute_id;
CREATE TABLE trial_user_attributes (
    trial_user_attribute_id integer NOT NULL,
    trial_id integer,
    key character varying(512),
    value_json text
);
CREATE SEQUENCE trial_user_attributes_trial_user_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trial_user_attributes_trial_user_attribute_id_seq OWNED BY trial_user_attributes.trial_user_attribute_id;
CREATE TABLE trial_values (
    trial_value_id integer NOT NULL,
    trial_id integer NOT NULL,
    objective integer NOT NULL,
    value double precision,
    value_type trialvaluetype NOT NULL
);
CREATE SEQUENCE trial_values_trial_value_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trial_values_trial_value_id_seq OWNED BY trial_values.trial_value_id;
CREATE TABLE trials (
    trial_id integer NOT NULL,
    number integer,
    study_id integer,
    state trialstate NOT NULL,
    datetime_start timestamp without time zone,
    datetime_complete timestamp without time zone
);
CREATE SEQUENCE trials_trial_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE trials_trial_id_seq OWNED BY trials.trial_id;
CREATE TABLE version_info (
    version_info_id integer NOT NULL,
    schema_version integer,
    library_version character varying(256),
    CONSTRAINT version_info_version_info_id_check CHECK ((version_info_id = 1))
);
ALTER TABLE ONLY studies ALTER COLUMN study_id SET DEFAULT nextval('studies_study_id_seq'::regclass);
ALTER TABLE ONLY study_directions ALTER COLUMN study_direction_id SET DEFAULT nextval('study_directions_study_direction_id_seq'::regclass);
ALTER TABLE ONLY study_system_attributes ALTER COLUMN study_system_attribute_id SET DEFAULT nextval('study_system_attributes_study_system_attribute_id_seq'::regclass);
ALTER TABLE ONLY study_user_attributes ALTER COLUMN study_user_attribute_id SET DEFAULT nextval('study_user_attributes_study_user_attribute_id_seq'::regclass);
ALTER TABLE ONLY trial_heartbeats ALTER COLUMN trial_heartbeat_id SET DEFAULT nextval('trial_heartbeats_trial_heartbeat_id_seq'::regclass);
ALTER TABLE ONLY trial_intermediate_values ALTER COLUMN trial_intermediate_value_id SET DEFAULT nextval('trial_intermediate_values_trial_intermediate_value_id_seq'::regclass);
ALTER TABLE ONLY trial_params ALTER COLUMN param_id SET DEFAULT nextval('trial_params_param_id_seq'::regclass);
ALTER TABLE ONLY trial_system_attributes ALTER COLUMN trial_system_attribute_id SET DEFAULT nextval('trial_system_attributes_trial_system_attribute_id_seq'::regclass);
ALTER TABLE ONLY trial_user_attributes ALTER COLUMN trial_user_attribute_id SET DEFAULT nextval('trial_user_attributes_trial_user_attribute_id_seq'::regclass);
ALTER TABLE ONLY trial_values ALTER COLUMN trial_value_id SET DEFAULT nextval('trial_values_trial_value_id_seq'::regclass);
ALTER TABLE ONLY trials ALTER COLUMN trial_id SET DEFAULT nextval('trials_trial_id_seq'::regclass);
INSERT INTO alembic_version VALUES ('v3.2.0.a');
INSERT INTO studies VALUES (1, 'descent');
INSERT INTO study_directions VALUES (1, 'MINIMIZE', 1, 0);
INSERT INTO study_system_attributes VALUES (1, 1, 'study:metric_names', '["loss"]');
INSERT INTO study_user_attributes VALUES (1, 1, 'identity', '"900137b9d92e1ecac182b68092ca4b50612615c3cc327191e3408cfdf82bf312"');
INSERT INTO study_user_attributes VALUES (2, 1, 'folder', '"@HOME@/descent"');
INSERT INTO study_user_attributes VALUES (3, 1, 'starts', '[{"params": {"params.rate": 2.2}, "of": "from the file", "value": null}, {"params": {"params.rate": 1.5}, "of": "from the file", "value": null}, {"params": {"params.rate": 0.5}, "of": "from `prior`", "value": null}]');
INSERT INTO trial_intermediate_values VALUES (1, 2, 0, 0.04927482679073113, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (2, 3, 0, 0.2717045386530217, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (3, 2, 1, 0.012081821812610492, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (4, 3, 1, 0.08815934474225795, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (5, 2, 2, 0.0029695015997258877, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (6, 3, 2, 0.051382702385228296, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (7, 5, 0, 0.4618993814600544, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (8, 4, 0, 0.04906653105057967, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (9, 5, 1, 0.1382990820792866, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (10, 4, 1, 0.01197559530216711, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (11, 5, 2, 0.07641095838998702, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (12, 4, 2, 0.0029304248673243448, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (13, 6, 0, 7.327350598967671, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (14, 7, 0, 10.05675662711724, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (15, 8, 0, 0.8733331215954441, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (16, 9, 0, 2.2892213957401233, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (17, 10, 0, 0.0799992104952872, 'FINITE');
INSERT INTO trial_intermediate_values VALUES (18, 11, 0, 0.08557662867627307, 'FINITE');
INSERT INTO trial_params VALUES (1, 1, 'params.rate', 2.2, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (2, 2, 'params.rate', 1.5, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (3, 3, 'params.rate', 0.5, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (4, 5, 'params.rate', 0.37444312455790907, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (5, 4, 'params.rate', 1.5045376677091538, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (6, 6, 'params.rate', 0.060561625259562296, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (7, 7, 'params.rate', 0.039887637268774465, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (8, 8, 'params.rate', 0.2567092148079618, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (9, 9, 'params.rate', 0.14697569749019437, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (10, 10, 'params.rate', 1.7171165642797452, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_params VALUES (11, 11, 'params.rate', 0.984448516345186, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 2.4, "log": true}}');
INSERT INTO trial_system_attributes VALUES (1, 1, 'hpotune:announced', '{"params.rate": 2.2}');
INSERT INTO trial_system_attributes VALUES (2, 2, 'hpotune:announced', '{"params.rate": 1.5}');
INSERT INTO trial_system_attributes VALUES (3, 3, 'hpotune:announced', '{"params.rate": 0.5}');
INSERT INTO trial_system_attributes VALUES (4, 5, 'hpotune:announced', '{"params.rate": 0.37444312455790907}');
INSERT INTO trial_system_attributes VALUES (5, 4, 'hpotune:announced', '{"params.rate": 1.5045376677091538}');
INSERT INTO trial_system_attributes VALUES (6, 6, 'hpotune:announced', '{"params.rate": 0.060561625259562296}');
INSERT INTO trial_system_attributes VALUES (7, 7, 'hpotune:announced', '{"params.rate": 0.039887637268774465}');
INSERT INTO trial_system_attributes VALUES (8, 8, 'hpotune:announced', '{"params.rate": 0.2567092148079618}');
INSERT INTO trial_system_attributes VALUES (9, 9, 'hpotune:announced', '{"params.rate": 0.14697569749019437}');
INSERT INTO trial_system_attributes VALUES (10, 10, 'hpotune:announced', '{"params.rate": 1.7171165642797452}');
INSERT INTO trial_system_attributes VALUES (11, 11, 'hpotune:announced', '{"params.rate": 0.984448516345186}');
INSERT INTO trial_user_attributes VALUES (1, 1, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (2, 2, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (3, 3, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (4, 4, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (5, 5, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (6, 6, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (7, 7, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (8, 8, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (9, 9, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (10, 10, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (11, 11, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (12, 12, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (13, 1, 'worker', '{"job": "local", "host": "old-node", "pid": 14628, "task": "."}');
INSERT INTO trial_user_attributes VALUES (14, 1, 'rung', '0');
INSERT INTO trial_user_attributes VALUES (17, 1, 'metrics', '{"gpu_hours": 0.0, "seconds": 0.215}');
INSERT INTO trial_user_attributes VALUES (18, 1, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881346.4996, "end": 1795881346.8568916, "outcome": "failed", "cause": "user", "message": "its process ended with exit code 1: ValueError: diverged: rate 2.2 is above 1.9", "gpus": 0, "swept": false, "checkpoint": null, "rung": 0}]');
INSERT INTO trial_user_attributes VALUES (19, 1, 'failure', '{"cause": "user", "message": "its process ended with exit code 1: ValueError: diverged: rate 2.2 is above 1.9"}');
INSERT INTO trial_user_attributes VALUES (20, 13, 'kind', '"trial"');
INSERT INTO trial_user_attributes VALUES (31, 3, 'metrics', '{"gpu_hours": 0.0, "loss": 0.051382702385228296, "began": 18, "calls": 3, "steps": 27, "seconds": 2.459}');
INSERT INTO trial_user_attributes VALUES (32, 3, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (33, 3, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881346.993647, "end": 1795881349.595288, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881349.1728582, "rung": 0}, {"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881349.752633, "end": 1795881352.2938802, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881351.8625224, "rung": 1}, {"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881352.415223, "end": 1795881354.9426162, "outcome": "finished", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": null, "rung": 2}]');
INSERT INTO trial_user_attributes VALUES (15, 2, 'worker', '{"job": "local", "host": "old-node", "pid": 14629, "task": "."}');
INSERT INTO trial_user_attributes VALUES (16, 2, 'rung', '2');
INSERT INTO trial_user_attributes VALUES (68, 4, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.04906653105057967], "stderrs": [null], "breaks": false}, {"rung": 1, "budget": 0.667, "values": [0.01197559530216711], "stderrs": [null], "breaks": false}, {"rung": 2, "budget": 1.0, "values": [0.0029304248673243448], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (69, 4, 'metrics', '{"gpu_hours": 0.0, "loss": 0.0029304248673243448, "began": 18, "calls": 3, "steps": 27, "seconds": 2.484}');
INSERT INTO trial_user_attributes VALUES (97, 6, 'worker', '{"job": "local", "host": "old-node", "pid": 14628, "task": "."}');
INSERT INTO trial_user_attributes VALUES (70, 4, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (21, 3, 'worker', '{"job": "local", "host": "old-node", "pid": 14628, "task": "."}');
INSERT INTO trial_user_attributes VALUES (22, 3, 'rung', '2');
INSERT INTO trial_user_attributes VALUES (23, 2, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.04927482679073113], "stderrs": [null], "breaks": false}, {"rung": 1, "budget": 0.667, "values": [0.012081821812610492], "stderrs": [null], "breaks": false}, {"rung": 2, "budget": 1.0, "values": [0.0029695015997258877], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (24, 2, 'metrics', '{"gpu_hours": 0.0, "loss": 0.0029695015997258877, "began": 18, "calls": 3, "steps": 27, "seconds": 2.489}');
INSERT INTO trial_user_attributes VALUES (25, 2, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (26, 2, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881346.704022, "end": 1795881349.407523, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881349.0048485, "rung": 0}, {"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881349.486261, "end": 1795881351.9922388, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881351.570888, "rung": 1}, {"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881352.17271, "end": 1795881354.8274581, "outcome": "finished", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": null, "rung": 2}]');
INSERT INTO trial_user_attributes VALUES (30, 3, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.2717045386530217], "stderrs": [null], "breaks": false}, {"rung": 1, "budget": 0.667, "values": [0.08815934474225795], "stderrs": [null], "breaks": false}, {"rung": 2, "budget": 1.0, "values": [0.051382702385228296], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (64, 5, 'metrics', '{"gpu_hours": 0.0, "loss": 0.07641095838998702, "began": 18, "calls": 3, "steps": 27, "seconds": 2.492}');
INSERT INTO trial_user_attributes VALUES (65, 5, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (99, 6, 'rung', '0');
INSERT INTO trial_user_attributes VALUES (66, 5, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881355.018617, "end": 1795881357.6065254, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881357.1941156, "rung": 0}, {"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881357.733832, "end": 1795881360.2859051, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881359.8869488, "rung": 1}, {"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881360.414814, "end": 1795881362.9972594, "outcome": "finished", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": null, "rung": 2}]');
INSERT INTO trial_user_attributes VALUES (61, 5, 'worker', '{"job": "local", "host": "old-node", "pid": 14628, "task": "."}');
INSERT INTO trial_user_attributes VALUES (62, 5, 'rung', '2');
INSERT INTO trial_user_attributes VALUES (59, 4, 'worker', '{"job": "local", "host": "old-node", "pid": 14629, "task": "."}');
INSERT INTO trial_user_attributes VALUES (60, 4, 'rung', '2');
INSERT INTO trial_user_attributes VALUES (63, 5, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.4618993814600544], "stderrs": [null], "breaks": false}, {"rung": 1, "budget": 0.667, "values": [0.1382990820792866], "stderrs": [null], "breaks": false}, {"rung": 2, "budget": 1.0, "values": [0.07641095838998702], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (72, 4, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881354.962167, "end": 1795881357.7079642, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881357.305831, "rung": 0}, {"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881357.804633, "end": 1795881360.3210654, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881359.9172351, "rung": 1}, {"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881360.499575, "end": 1795881363.1081166, "outcome": "finished", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": null, "rung": 2}]');
INSERT INTO trial_user_attributes VALUES (101, 7, 'worker', '{"job": "local", "host": "old-node", "pid": 14629, "task": "."}');
INSERT INTO trial_user_attributes VALUES (102, 7, 'rung', '0');
INSERT INTO trial_user_attributes VALUES (103, 6, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [7.327350598967671], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (104, 6, 'metrics', '{"gpu_hours": 0.0, "loss": 7.327350598967671, "began": 0, "calls": 1, "steps": 9, "seconds": 2.467}');
INSERT INTO trial_user_attributes VALUES (105, 6, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (106, 6, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881363.097045, "end": 1795881365.677796, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881365.2894511, "rung": 0}]');
INSERT INTO trial_user_attributes VALUES (107, 8, 'worker', '{"job": "local", "host": "old-node", "pid": 14628, "task": "."}');
INSERT INTO trial_user_attributes VALUES (108, 8, 'rung', '0');
INSERT INTO trial_user_attributes VALUES (109, 7, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [10.05675662711724], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (110, 7, 'metrics', '{"gpu_hours": 0.0, "loss": 10.05675662711724, "began": 0, "calls": 1, "steps": 9, "seconds": 2.483}');
INSERT INTO trial_user_attributes VALUES (111, 7, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (112, 7, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881363.25148, "end": 1795881365.91403, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881365.5204256, "rung": 0}]');
INSERT INTO trial_user_attributes VALUES (113, 9, 'worker', '{"job": "local", "host": "old-node", "pid": 14629, "task": "."}');
INSERT INTO trial_user_attributes VALUES (114, 9, 'rung', '0');
INSERT INTO trial_user_attributes VALUES (115, 8, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.8733331215954441], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (116, 8, 'metrics', '{"gpu_hours": 0.0, "loss": 0.8733331215954441, "began": 0, "calls": 1, "steps": 9, "seconds": 2.466}');
INSERT INTO trial_user_attributes VALUES (117, 8, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (118, 8, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881365.776607, "end": 1795881368.3359175, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881367.9337246, "rung": 0}]');
INSERT INTO trial_user_attributes VALUES (119, 9, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [2.2892213957401233], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (120, 9, 'metrics', '{"gpu_hours": 0.0, "loss": 2.2892213957401233, "began": 0, "calls": 1, "steps": 9, "seconds": 2.435}');
INSERT INTO trial_user_attributes VALUES (121, 9, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (123, 9, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881365.961005, "end": 1795881368.4458756, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881368.0444636, "rung": 0}]');
INSERT INTO trial_user_attributes VALUES (127, 10, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.0799992104952872], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (128, 10, 'metrics', '{"gpu_hours": 0.0, "loss": 0.0799992104952872, "began": 0, "calls": 1, "steps": 9, "seconds": 2.493}');
INSERT INTO trial_user_attributes VALUES (129, 10, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (131, 11, 'rungs', '[{"rung": 0, "budget": 0.333, "values": [0.08557662867627307], "stderrs": [null], "breaks": false}]');
INSERT INTO trial_user_attributes VALUES (133, 11, 'metrics', '{"gpu_hours": 0.0, "loss": 0.08557662867627307, "began": 0, "calls": 1, "steps": 9, "seconds": 2.471}');
INSERT INTO trial_user_attributes VALUES (134, 11, 'stderrs', '[null]');
INSERT INTO trial_user_attributes VALUES (124, 10, 'rung', '1');
INSERT INTO trial_user_attributes VALUES (126, 11, 'rung', '1');
INSERT INTO trial_user_attributes VALUES (130, 10, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881368.466588, "end": 1795881371.0953383, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881370.6934397, "rung": 0}, {"worker": {"job": "local", "host": "old-node", "pid": 14628, "task": "."}, "start": 1795881371.253472, "end": 1795881373.6564276, "outcome": "paused", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881373.3625185, "rung": 1}]');
INSERT INTO trial_user_attributes VALUES (135, 11, 'attempts', '[{"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881368.55912, "end": 1795881371.1638007, "outcome": "rung", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881370.765696, "rung": 0}, {"worker": {"job": "local", "host": "old-node", "pid": 14629, "task": "."}, "start": 1795881371.33199, "end": 1795881373.6640465, "outcome": "paused", "cause": null, "message": "", "gpus": 0, "swept": false, "checkpoint": 1795881373.4584792, "rung": 1}]');
INSERT INTO trial_user_attributes VALUES (125, 11, 'worker', 'null');
INSERT INTO trial_user_attributes VALUES (122, 10, 'worker', 'null');
INSERT INTO trial_values VALUES (1, 2, 0, 0.0029695015997258877, 'FINITE');
INSERT INTO trial_values VALUES (2, 3, 0, 0.051382702385228296, 'FINITE');
INSERT INTO trial_values VALUES (3, 5, 0, 0.07641095838998702, 'FINITE');
INSERT INTO trial_values VALUES (4, 4, 0, 0.0029304248673243448, 'FINITE');
INSERT INTO trial_values VALUES (5, 6, 0, 7.327350598967671, 'FINITE');
INSERT INTO trial_values VALUES (6, 7, 0, 10.05675662711724, 'FINITE');
INSERT INTO trial_values VALUES (7, 8, 0, 0.8733331215954441, 'FINITE');
INSERT INTO trial_values VALUES (8, 9, 0, 2.2892213957401233, 'FINITE');
INSERT INTO trials VALUES (12, 11, 1, 'WAITING', NULL, NULL);
INSERT INTO trials VALUES (1, 0, 1, 'FAIL', '2026-11-28 15:55:46.4996', '2026-11-28 15:55:46.87655');
INSERT INTO trials VALUES (13, 12, 1, 'WAITING', NULL, NULL);
INSERT INTO trials VALUES (2, 1, 1, 'COMPLETE', '2026-11-28 15:55:52.17271', '2026-11-28 15:55:54.863485');
INSERT INTO trials VALUES (3, 2, 1, 'COMPLETE', '2026-11-28 15:55:52.415223', '2026-11-28 15:55:54.959503');
INSERT INTO trials VALUES (5, 4, 1, 'COMPLETE', '2026-11-28 15:56:00.414814', '2026-11-28 15:56:03.015189');
INSERT INTO trials VALUES (4, 3, 1, 'COMPLETE', '2026-11-28 15:56:00.499575', '2026-11-28 15:56:03.140417');
INSERT INTO trials VALUES (6, 5, 1, 'PRUNED', '2026-11-28 15:56:03.097045', '2026-11-28 15:56:05.728562');
INSERT INTO trials VALUES (7, 6, 1, 'PRUNED', '2026-11-28 15:56:03.25148', '2026-11-28 15:56:05.942614');
INSERT INTO trials VALUES (8, 7, 1, 'PRUNED', '2026-11-28 15:56:05.776607', '2026-11-28 15:56:08.396532');
INSERT INTO trials VALUES (9, 8, 1, 'PRUNED', '2026-11-28 15:56:05.961005', '2026-11-28 15:56:08.504346');
INSERT INTO trials VALUES (11, 10, 1, 'WAITING', '2026-11-28 15:56:11.33199', NULL);
INSERT INTO trials VALUES (10, 9, 1, 'WAITING', '2026-11-28 15:56:11.253472', NULL);
INSERT INTO version_info VALUES (1, 12, '5.0.0');
SELECT pg_catalog.setval('studies_study_id_seq', 1, true);
SELECT pg_catalog.setval('study_directions_study_direction_id_seq', 1, true);
SELECT pg_catalog.setval('study_system_attributes_study_system_attribute_id_seq', 1, true);
SELECT pg_catalog.setval('study_user_attributes_study_user_attribute_id_seq', 3, true);
SELECT pg_catalog.setval('trial_heartbeats_trial_heartbeat_id_seq', 1, false);
SELECT pg_catalog.setval('trial_intermediate_values_trial_intermediate_value_id_seq', 18, true);
SELECT pg_catalog.setval('trial_params_param_id_seq', 11, true);
SELECT pg_catalog.setval('trial_system_attributes_trial_system_attribute_id_seq', 11, true);
SELECT pg_catalog.setval('trial_user_attributes_trial_user_attribute_id_seq', 144, true);
SELECT pg_catalog.setval('trial_values_trial_value_id_seq', 8, true);
SELECT pg_catalog.setval('trials_trial_id_seq', 13, true);
ALTER TABLE ONLY alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY studies
    ADD CONSTRAINT studies_pkey PRIMARY KEY (study_id);
ALTER TABLE ONLY study_directions
    ADD CONSTRAINT study_directions_pkey PRIMARY KEY (study_direction_id);
ALTER TABLE ONLY study_directions
    ADD CONSTRAINT study_directions_study_id_objective_key UNIQUE (study_id, objective);
ALTER TABLE ONLY study_system_attributes
    ADD CONSTRAINT study_system_attributes_pkey PRIMARY KEY (study_system_attribute_id);
ALTER TABLE ONLY study_system_attributes
    ADD CONSTRAINT study_system_attributes_study_id_key_key UNIQUE (study_id, key);
ALTER TABLE ONLY study_user_attributes
    ADD CONSTRAINT study_user_attributes_pkey PRIMARY KEY (study_user_attribute_id);
ALTER TABLE ONLY study_user_attributes
    ADD CONSTRAINT study_user_attributes_study_id_key_key UNIQUE (study_id, key);
ALTER TABLE ONLY trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_pkey PRIMARY KEY (trial_heartbeat_id);
ALTER TABLE ONLY trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_trial_id_key UNIQUE (trial_id);
ALTER TABLE ONLY trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_pkey PRIMARY KEY (trial_intermediate_value_id);
ALTER TABLE ONLY trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_trial_id_step_key UNIQUE (trial_id, step);
ALTER TABLE ONLY trial_params
    ADD CONSTRAINT trial_params_pkey PRIMARY KEY (param_id);
ALTER TABLE ONLY trial_params
    ADD CONSTRAINT trial_params_trial_id_param_name_key UNIQUE (trial_id, param_name);
ALTER TABLE ONLY trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_pkey PRIMARY KEY (trial_system_attribute_id);
ALTER TABLE ONLY trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_trial_id_key_key UNIQUE (trial_id, key);
ALTER TABLE ONLY trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_pkey PRIMARY KEY (trial_user_attribute_id);
ALTER TABLE ONLY trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_trial_id_key_key UNIQUE (trial_id, key);
ALTER TABLE ONLY trial_values
    ADD CONSTRAINT trial_values_pkey PRIMARY KEY (trial_value_id);
ALTER TABLE ONLY trial_values
    ADD CONSTRAINT trial_values_trial_id_objective_key UNIQUE (trial_id, objective);
ALTER TABLE ONLY trials
    ADD CONSTRAINT trials_pkey PRIMARY KEY (trial_id);
ALTER TABLE ONLY version_info
    ADD CONSTRAINT version_info_pkey PRIMARY KEY (version_info_id);
CREATE UNIQUE INDEX ix_studies_study_name ON studies USING btree (study_name);
CREATE INDEX ix_trials_study_id ON trials USING btree (study_id);
ALTER TABLE ONLY study_directions
    ADD CONSTRAINT study_directions_study_id_fkey FOREIGN KEY (study_id) REFERENCES studies(study_id);
ALTER TABLE ONLY study_system_attributes
    ADD CONSTRAINT study_system_attributes_study_id_fkey FOREIGN KEY (study_id) REFERENCES studies(study_id);
ALTER TABLE ONLY study_user_attributes
    ADD CONSTRAINT study_user_attributes_study_id_fkey FOREIGN KEY (study_id) REFERENCES studies(study_id);
ALTER TABLE ONLY trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES trials(trial_id);
ALTER TABLE ONLY trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES trials(trial_id);
ALTER TABLE ONLY trial_params
    ADD CONSTRAINT trial_params_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES trials(trial_id);
ALTER TABLE ONLY trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES trials(trial_id);
ALTER TABLE ONLY trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES trials(trial_id);
ALTER TABLE ONLY trial_values
    ADD CONSTRAINT trial_values_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES trials(trial_id);
ALTER TABLE ONLY trials
    ADD CONSTRAINT trials_study_id_fkey FOREIGN KEY (study_id) REFERENCES studies(study_id);
