/** What Redis counts of itself. */
import type { Redis } from 'ioredis';

export interface RedisCounts {
  /** Its processor time, with that of the children that rewrite its file. */
  readonly cpuSeconds: number;
  /** Commands executed, those that scripts call included. */
  readonly commands: number;
  /** Received and sent. */
  readonly bytes: number;
  /** Memory of the data: without the buffers of clients and of the append-only file. */
  readonly dataBytes: number;
}

export async function countRedis(client: Redis): Promise<RedisCounts> {
  const info = await client.info();
  const read = (name: string) => Number(new RegExp(`^${name}:([\\d.]+)`, 'm').exec(info)?.[1] ?? 0);
  const cpu = ['used_cpu_sys', 'used_cpu_user', 'used_cpu_sys_children', 'used_cpu_user_children'];
  return {
    cpuSeconds: cpu.reduce((sum, name) => sum + read(name), 0),
    commands: read('total_commands_processed'),
    bytes: read('total_net_input_bytes') + read('total_net_output_bytes'),
    dataBytes: read('used_memory') - read('mem_clients_normal') - read('mem_aof_buffer'),
  };
}
