-- Versions of a turn: another question, or another answer, in its place. Each is a turn of its own. One is open; the
-- others are aside, each with the turns that followed it (`tail`), out of the history and out of sight.

local MOST_VERSIONS = 20
-- Turns of a thread that are aside, beside those that were open last; about as many as a history has.
local MOST_ASIDE = 200

-- The turns of the open branch of an idle thread that were asked after a time, in their order.
local function open_turns(thread, since)
  local found, asked = {}, {}
  for _, ids in ipairs({
    redis.call('ZRANGE', key('turns', thread), 0, -1), redis.call('LRANGE', key('history', thread), 0, -1),
  }) do
    for _, id in ipairs(ids) do
      if not asked[id] then
        local fields = redis.call('HMGET', key('turn', id), 'thread', 'aside', 'forget', 'asked_at')
        asked[id] = tonumber(fields[4]) or 0
        local is_shown = fields[1] and not fields[2] and not fields[3]
        if is_shown and asked[id] > since then table.insert(found, id) end
      end
    end
  end
  table.sort(found, function(one, other) return asked[one] < asked[other] end)
  return found
end

-- The version of a turn that is open; nothing if all are part of another branch, which is not.
local function version_open(id)
  for _, one in ipairs({id, unpack(versions_of(id))}) do
    if record(one).thread and not has(one, 'aside') and not has(one, 'forget') then return one end
  end
end

-- The newest reply of the open branch has the buttons.
local function renew_newest(thread)
  redis.call('DEL', key('newest', thread))
  local found = open_turns(thread, -1)
  for at = #found, 1, -1 do
    if last_message(found[at]) ~= '' then
      return redis.call('SET', key('newest', thread), found[at], 'PX', keep_ms(thread))
    end
  end
end

local function put_aside(id, thread)
  local tail = open_turns(thread, tonumber(get(id, 'asked_at')) or 0)
  set(id, 'tail', table.concat(tail, '\n'))
  for _, one in ipairs({id, unpack(tail)}) do
    set(one, 'aside', '1')
    redis.call('LREM', key('history', thread), 1, one)
    redis.call('RPUSH', key('aside', thread), one)
  end
  keep_in(thread, key('aside', thread))
end

local function bring_back(id, thread)
  for _, one in ipairs({id, unpack(ids_of(id, 'tail'))}) do
    redis.call('LREM', key('aside', thread), 1, one)
    local fields = redis.call('HMGET', key('turn', one), 'thread', 'forget', 'bytes')
    if fields[1] and not fields[2] then
      unset(one, 'aside')
      if fields[3] then redis.call('RPUSH', key('history', thread), one) end -- it has an answer
    end
  end
  unset(id, 'tail')
  keep_in(thread, key('history', thread))
end

-- Makes room for one more version; what was put aside last stays in any case.
local function drop_oldest(group, thread, newest)
  local versions, aside = key('versions', group), key('aside', thread)
  if redis.call('LLEN', versions) >= MOST_VERSIONS then
    for _, one in ipairs(redis.call('LRANGE', versions, 0, -1)) do
      if one ~= newest then discard(one) break end
    end
  end
  while redis.call('LLEN', aside) > MOST_ASIDE do
    local first = redis.call('LINDEX', aside, 0)
    if first == newest then return end
    discard(first)
    redis.call('LREM', aside, 1, first)
  end
end

-- What was read of a question's files, and which effects it has begun, hold for its next version, too.
local function copy_work(id, following, thread)
  redis.call('SUNIONSTORE', key('effects', following), key('effects', id))
  for _, name in ipairs(redis.call('HKEYS', key('files', id))) do
    local message, file = string.match(name, '^(.*) (.-)$')
    if message == id then
      redis.call('HSET', key('files', following), following .. ' ' .. file, redis.call('HGET', key('files', id), name))
    end
  end
  keep_in(thread, key('effects', following), key('files', following))
end

-- Why a person may not have another version of a turn; '' if they may.
local function version_refusal(id, turn, asker)
  local known = redis.call('HMGET', key('turn', id), 'forget', 'asker')
  if known[1] or not known[2] or not turn.thread or turn.state == 'dropped' then return 'gone' end
  if known[2] ~= asker then return 'asker' end
  return redis.call('LLEN', key('mailbox', turn.thread)) > 0 and 'thread' or ''
end

-- Admits the turn `following` as another version of a turn of an idle thread, and puts that aside with what followed
-- it. As a turn of its own it is found by a call that comes twice. If the question is the same and has no answer that
-- could be kept, it is queued again instead, as by `regenerate`. Returns 'admitted', or 'again' for this.
function verbs.branch(id, asker, following, fields, person_limit, total_limit, quota)
  local turn = record(id)
  if redis.call('EXISTS', key('turn', following)) == 1 then return 'admitted' end
  if redis.call('EXISTS', key('pressed', following)) == 1 then return 'again' end
  local refused = version_refusal(id, turn, asker)
  if refused ~= '' then return refused end
  local question, open, thread = decoded(fields), version_open(id), turn.thread
  question.once = get(id, 'once') or nil
  if not open then return 'gone' end
  if open == id and not has(id, 'answer') and get(id, 'text') == question.text then
    return verbs.regenerate(id, asker, following, '', person_limit, total_limit, quota)
  end
  quota = decoded(quota)
  refused = refusal(turn.person, person_limit, total_limit)
  if refused == '' then refused = quota_refusal(turn.person, thread, quota, needs(quota)) end
  if refused ~= '' then return refused end

  if not contains(versions_of(id), id) then
    set(id, 'version_of', id)
    redis.call('RPUSH', key('versions', id), id)
  end
  local group = get(id, 'version_of')
  put_aside(open, thread)
  renew_newest(thread)
  drop_oldest(group, thread, open)
  redis.call('RPUSH', key('versions', group), following)
  store_turn(following, thread, turn.person, question, quota)
  set(following, 'version_of', group)
  copy_work(id, following, thread)
  keep_versions(thread)
  return 'admitted'
end

-- Opens another version of a turn of an idle thread, with what followed it. A second call changes nothing.
function verbs.open(id, asker)
  local turn = record(id)
  local refused = version_refusal(id, turn, asker)
  if (refused == '' or refused == 'thread') and not has(id, 'aside') then return 1 end
  if refused ~= '' then return refused end
  local open = version_open(id)
  if not open or not has(id, 'tail') then return 'gone' end
  put_aside(open, turn.thread)
  bring_back(id, turn.thread)
  renew_newest(turn.thread)
  return 1
end
